"""Checkpoints: damaged or of other inputs they are not used, and there are never more than two."""

import random
from pathlib import Path

import numpy as np
import pytest

from stages.support.checkpoint import Checkpoints, History


class Variable:
    """Stands in for a Keras variable."""

    def __init__(self, value: float) -> None:
        self.value = np.full((20, 10), value, np.float32)

    def assign(self, value: np.ndarray) -> None:
        self.value = value

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return self.value


def checkpoints(folder: Path, inputs: str = "inputs") -> Checkpoints:
    return Checkpoints(folder / "model", inputs, [Variable(0), Variable(0)])


def restore(found: Checkpoints) -> History:
    history, values = found.restore()
    for variable, value in zip(found.variables, values, strict=bool(history)):
        variable.assign(value)
    return history


def save(folder: Path, epochs: int, inputs: str = "inputs") -> Checkpoints:
    written = checkpoints(folder, inputs)
    restore(written)
    for epoch in range(1, epochs + 1):
        for number, variable in enumerate(written.variables):
            variable.assign(np.full((20, 10), 10 * epoch + number, np.float32))
        written.save([{"epoch": n, "loss": 1 / n} for n in range(1, epoch + 1)])
        assert len(list((folder / "model").iterdir())) <= 2
    return written


def values(found: Checkpoints) -> list[float]:
    return [float(variable.value[0, 0]) for variable in found.variables]


def test_the_newest_is_restored_whole(tmp_path: Path) -> None:
    save(tmp_path, 3)
    found = checkpoints(tmp_path)
    assert restore(found) == [{"epoch": n, "loss": 1 / n} for n in (1, 2, 3)]
    assert values(found) == [30, 31]


def test_those_of_other_inputs_are_neither_used_nor_kept(tmp_path: Path) -> None:
    save(tmp_path, 5, "other inputs")
    found = checkpoints(tmp_path)
    assert restore(found) == []
    assert values(found) == [0, 0]
    save(tmp_path, 2)
    assert {path.name for path in (tmp_path / "model").iterdir()} == {
        "epoch-000001.npz",
        "epoch-000002.npz",
    }


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_one_is_set_aside_and_the_one_before_it_used(
    tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, 3)
    path = tmp_path / "model/epoch-000003.npz"
    content = bytearray(path.read_bytes())
    chance = random.Random(seed)
    if seed % 3:
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    else:
        content = content[: chance.randrange(len(content))]
    path.write_bytes(content)
    found = checkpoints(tmp_path)
    history = restore(found)
    # A bit in the archive's dates or padding harms nothing; whatever is used is right.
    assert values(found) == [10 * len(history), 10 * len(history) + 1]
    assert len(history) in (2, 3)
    if len(history) == 2:
        assert "set aside damaged checkpoint" in capsys.readouterr().out
        assert path.with_suffix(".damaged").exists()
        assert seed % 3 == 0 or not path.exists()


def test_with_all_damaged_it_starts_anew(tmp_path: Path) -> None:
    save(tmp_path, 2)
    for path in (tmp_path / "model").iterdir():
        path.write_bytes(b"")
    found = checkpoints(tmp_path)
    assert restore(found) == []
    assert values(found) == [0, 0]
