"""Checkpoints: damaged ones and those of other training runs are not used; at most two are kept."""

import random
from pathlib import Path

import numpy as np
import pytest

from stages.common.quiet_keras import keras
from stages.training.checkpoints import Checkpoints, History


def values(epoch: int) -> list[np.ndarray]:
    """The values of the two variables after an epoch; 0 is before the first."""
    return [np.full((20, 10), 10 * epoch + number, np.float32) for number in range(2)]


def open_checkpoints(folder: Path, fingerprint: str = "fingerprint") -> Checkpoints:
    """The checkpoints of a training run that begins."""
    return Checkpoints(folder, fingerprint, [keras.Variable(value) for value in values(0)])


def history(epochs: int) -> History:
    """The history of so many epochs."""
    return [{"epoch": n, "loss": 1 / n, "seconds": 0.1} for n in range(1, epochs + 1)]


def files(folder: Path) -> list[str]:
    """The names of the files in a folder."""
    return sorted(path.name for path in folder.iterdir())


def save_epochs(folder: Path, epochs: int, fingerprint: str = "fingerprint") -> None:
    """Save a checkpoint after each epoch."""
    checkpoints = open_checkpoints(folder, fingerprint)
    checkpoints.restore()
    for epoch in range(1, epochs + 1):
        for variable, value in zip(checkpoints.variables, values(epoch), strict=True):
            variable.assign(value)
        checkpoints.history = history(epoch)
        checkpoints.save()
        assert len([*folder.glob("*epoch-*")]) <= 2


def assert_restores(folder: Path, *allowed: int) -> int:
    """Restoring gives one of these epochs, 0 for none, completely; returns it."""
    checkpoints = open_checkpoints(folder)
    epoch = checkpoints.restore()
    assert epoch in allowed
    assert checkpoints.history == history(epoch)
    for variable, value in zip(checkpoints.variables, values(epoch), strict=True):
        assert (variable.numpy() == value).all()
    return epoch


def test_checkpoint_with_other_fingerprint_is_ignored_and_replaced(tmp_path: Path) -> None:
    save_epochs(tmp_path, 5, "another fingerprint")
    assert_restores(tmp_path, 0)
    save_epochs(tmp_path, 2)
    assert files(tmp_path) == ["epoch-000001.npz", "epoch-000002.npz"]
    assert_restores(tmp_path, 2)


def test_files_beside_the_checkpoints_are_kept_unless_of_an_incomplete_one(tmp_path: Path) -> None:
    (tmp_path / "features-0123").mkdir()
    (tmp_path / ".partial-epoch-000009.npz").touch()
    save_epochs(tmp_path, 3)
    assert files(tmp_path) == ["epoch-000002.npz", "epoch-000003.npz", "features-0123"]


def test_damaged_checkpoint_is_set_aside_and_the_one_before_it_restored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_aside = 0
    for seed in range(20):
        folder, generator = tmp_path / str(seed), random.Random(seed)
        save_epochs(folder, 3)
        path = folder / "epoch-000003.npz"
        content = bytearray(path.read_bytes())
        if seed % 3 == 0:
            content = content[: generator.randrange(len(content))]
        else:
            content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        path.write_bytes(content)
        # A flipped bit in dates or padding is harmless; whatever is restored must be correct.
        if assert_restores(folder, 2, 3) == 2:
            set_aside += 1
            assert capsys.readouterr().out.startswith(f"set aside damaged checkpoint {path}: ")
            assert files(folder) == ["epoch-000002.npz", "epoch-000003.damaged"]
            save_epochs(folder, 4)
            assert_restores(folder, 4)
    assert set_aside > 14
    for path in folder.iterdir():
        path.write_bytes(b"")
    assert_restores(folder, 0)
