"""Checkpoints: damaged ones and those of other training runs are not used; at most two are kept."""

import json
import math
import os
import random
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.training.checkpoints import Checkpoints


class Variable:
    """Stands in for a Keras variable."""

    def __init__(self, value: float) -> None:
        self.value = np.full((20, 10), value, np.float32)

    def assign(self, value: np.ndarray) -> None:
        self.value = value

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return self.value


def open_checkpoints(folder: Path, fingerprint: str = "fingerprint") -> Checkpoints:
    """The checkpoints of a training run with two variables that are 0."""
    return Checkpoints(folder, fingerprint, [Variable(0), Variable(0)])


def history(epochs: int) -> list[dict[str, float]]:
    """The history of so many epochs."""
    names = ("accuracy", "loss", "val_accuracy", "val_loss", "seconds")
    return [{"epoch": n, **dict.fromkeys(names, 1 / n)} for n in range(1, epochs + 1)]


def save_epochs(folder: Path, epochs: int, fingerprint: str = "fingerprint") -> None:
    """Save a checkpoint after each epoch, in which the variables are 10 * epoch and one more."""
    checkpoints = open_checkpoints(folder, fingerprint)
    checkpoints.restore()
    for epoch in range(1, epochs + 1):
        for number, variable in enumerate(checkpoints.variables):
            variable.assign(np.full((20, 10), 10 * epoch + number, np.float32))
        checkpoints.history = history(epoch)
        checkpoints.save()
        assert len(list(folder.iterdir())) <= 2


def values(checkpoints: Checkpoints) -> list[float]:
    """The first element of each variable."""
    return [float(variable.value[0, 0]) for variable in checkpoints.variables]


def test_newest_checkpoint_is_restored_completely(tmp_path: Path) -> None:
    save_epochs(tmp_path, 3)
    checkpoints = open_checkpoints(tmp_path)
    assert checkpoints.restore() == 3
    assert checkpoints.history == history(3)
    assert values(checkpoints) == [30, 31]


def test_checkpoint_with_other_fingerprint_is_discarded(tmp_path: Path) -> None:
    save_epochs(tmp_path, 5, "another fingerprint")
    checkpoints = open_checkpoints(tmp_path)
    assert checkpoints.restore() == 0
    assert checkpoints.history == []
    assert values(checkpoints) == [0, 0]
    save_epochs(tmp_path, 2)
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"epoch-000001.npz", "epoch-000002.npz"}


@pytest.mark.parametrize("seed", range(60))
def test_damaged_checkpoint_is_set_aside_and_the_previous_one_restored(
    tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    save_epochs(tmp_path, 3)
    path = tmp_path / "epoch-000003.npz"
    content = bytearray(path.read_bytes())
    generator = random.Random(seed)
    truncated = seed % 3 == 0
    if truncated:
        content = content[: generator.randrange(len(content))]
    else:
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    path.write_bytes(content)
    checkpoints = open_checkpoints(tmp_path)
    epochs = checkpoints.restore()
    # A flipped bit in dates or padding is harmless; whatever is restored must be correct.
    assert epochs in (2, 3)
    assert len(checkpoints.history) == epochs
    assert values(checkpoints) == [10 * epochs, 10 * epochs + 1]
    if epochs == 2:
        assert "set aside damaged checkpoint" in capsys.readouterr().out
        assert path.with_suffix(".damaged").exists()
        assert not path.exists()


def test_training_starts_from_scratch_if_all_checkpoints_are_damaged(tmp_path: Path) -> None:
    save_epochs(tmp_path, 2)
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    checkpoints = open_checkpoints(tmp_path)
    assert checkpoints.restore() == 0
    assert values(checkpoints) == [0, 0]


def rewrite(path: Path, **changes: Any) -> None:
    """Change entries of a checkpoint; None removes one."""
    with np.load(path) as saved:
        entries = {**saved, **changes}
    np.savez(path, **{name: value for name, value in entries.items() if value is not None})


def rewrite_history(path: Path, epochs: object) -> None:
    rewrite(path, history=np.array(json.dumps(epochs)))


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "file").touch()
    path.with_suffix(".damaged").mkdir()  # left by an earlier run


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)  # reading it would wait for ever


def replace_by_dead_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nothing")


def replace_by_bomb(path: Path) -> None:
    """Compress a checkpoint, with 200 MB of zeros in its history."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    entries["history.npy"] += bytes(200_000_000)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bomb:
        for name, content in entries.items():
            bomb.writestr(name, content)


def replace_by_huge_header(path: Path) -> None:
    """Replace a variable by one that claims to have 10**15 elements."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    shape = b"(20, 10), }" + b" " * 20
    claimed = b"(1000000000000000,), }".ljust(len(shape))
    assert shape in entries["variable_0.npy"]
    entries["variable_0.npy"] = entries["variable_0.npy"].replace(shape, claimed)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


ONES = np.ones((20, 10), np.float32)
EPOCHS = history(3)
# Each with valid checksums, so that only the content is wrong.
ODD_CONTENTS: dict[str, Callable[[Path], object]] = {
    "other shape": lambda path: rewrite(path, variable_1=ONES[:, :9]),
    "transposed": lambda path: rewrite(path, variable_1=ONES.T),
    "other dimensions": lambda path: rewrite(path, variable_1=ONES[None]),
    "scalar": lambda path: rewrite(path, variable_0=np.float32(1)),
    "float64": lambda path: rewrite(path, variable_0=ONES.astype(np.float64)),
    "float16": lambda path: rewrite(path, variable_0=ONES.astype(np.float16)),
    "integers": lambda path: rewrite(path, variable_0=ONES.astype(np.int32)),
    "text": lambda path: rewrite(path, variable_0=np.full((20, 10), "x")),
    "pickled": lambda path: rewrite(path, variable_0=np.full((20, 10), None, object)),
    "variable missing": lambda path: rewrite(path, variable_1=None),
    "variable added": lambda path: rewrite(path, variable_2=ONES),
    "unknown entry": lambda path: rewrite(path, weights=ONES),
    "fingerprint missing": lambda path: rewrite(path, fingerprint=None),
    "history missing": lambda path: rewrite(path, history=None),
    "history not JSON": lambda path: rewrite(path, history=np.array("[{")),
    "history of numbers": lambda path: rewrite(path, history=ONES),
    "nested history": lambda path: rewrite(path, history=np.array("[" * 100_000)),
    "history not a list": lambda path: rewrite_history(path, {"epoch": 3}),
    "history null": lambda path: rewrite_history(path, None),
    "history a number": lambda path: rewrite_history(path, 3),
    "history empty": lambda path: rewrite_history(path, []),
    "epochs not objects": lambda path: rewrite_history(path, [1, 2, 3]),
    "epochs as lists": lambda path: rewrite_history(path, [list(x.items()) for x in EPOCHS]),
    "epoch too few": lambda path: rewrite_history(path, EPOCHS[:2]),
    "epoch too many": lambda path: rewrite_history(path, history(4)),
    "epoch twice": lambda path: rewrite_history(path, [EPOCHS[0], *EPOCHS[:2]]),
    "epochs in other order": lambda path: rewrite_history(path, EPOCHS[::-1]),
    "loss missing": lambda path: rewrite_history(
        path, [{key: x[key] for key in x if key != "loss"} for x in EPOCHS]
    ),
    "metric added": lambda path: rewrite_history(path, [{**x, "f1": 1.0} for x in EPOCHS]),
    "loss NaN": lambda path: rewrite_history(path, [{**x, "loss": math.nan} for x in EPOCHS]),
    "loss infinite": lambda path: rewrite_history(path, [{**x, "loss": math.inf} for x in EPOCHS]),
    "loss as text": lambda path: rewrite_history(path, [{**x, "loss": "0.5"} for x in EPOCHS]),
    "loss null": lambda path: rewrite_history(path, [{**x, "loss": None} for x in EPOCHS]),
    "loss too large": lambda path: rewrite_history(path, [{**x, "loss": 10**400} for x in EPOCHS]),
    "epoch as text": lambda path: rewrite_history(path, [{**x, "epoch": "1"} for x in EPOCHS]),
    "array file": lambda path: np.save(path.open("wb"), ONES),
    "empty zip file": lambda path: zipfile.ZipFile(path, "w").close(),
    "text file": lambda path: path.write_text("hello"),
    "of another epoch": lambda path: path.write_bytes(
        path.with_name("epoch-000002.npz").read_bytes()
    ),
    "compressed": lambda path: np.savez_compressed(path, **np.load(path)),
    "huge header": replace_by_huge_header,
    "folder": replace_by_folder,
    "pipe": replace_by_pipe,
    "link to nothing": replace_by_dead_link,
    "unknown name": lambda path: path.rename(path.with_name("epoch-last.npz")),
}


@pytest.mark.parametrize("change", ODD_CONTENTS.values(), ids=ODD_CONTENTS)
def test_checkpoint_with_odd_content_is_set_aside_and_the_previous_one_restored(
    tmp_path: Path, change: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    save_epochs(tmp_path, 3)
    change(tmp_path / "epoch-000003.npz")
    checkpoints = open_checkpoints(tmp_path)
    assert checkpoints.restore() == 2
    assert checkpoints.history == history(2)
    assert values(checkpoints) == [20, 21]
    printed = capsys.readouterr().out
    print(printed)
    assert printed.startswith(f"set aside damaged checkpoint {tmp_path}/epoch-")
    assert printed.count("\n") == 1
    assert len(printed) < 400
    checkpoints.history = history(3)
    checkpoints.save()
    assert open_checkpoints(tmp_path).restore() == 3


def test_compressed_checkpoint_is_not_unpacked(tmp_path: Path) -> None:
    save_epochs(tmp_path, 3)
    replace_by_bomb(tmp_path / "epoch-000003.npz")
    tracemalloc.start()
    assert open_checkpoints(tmp_path).restore() == 2
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
