"""Checkpoints: damaged ones and those of other training runs are not used; at most two are kept."""

import random
from pathlib import Path

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


def save_epochs(folder: Path, epochs: int, fingerprint: str = "fingerprint") -> None:
    """Save a checkpoint after each epoch, in which the variables are 10 * epoch and one more."""
    checkpoints = open_checkpoints(folder, fingerprint)
    checkpoints.restore()
    for epoch in range(1, epochs + 1):
        for number, variable in enumerate(checkpoints.variables):
            variable.assign(np.full((20, 10), 10 * epoch + number, np.float32))
        checkpoints.history.append({"epoch": epoch, "loss": 1 / epoch})
        checkpoints.save()
        assert len(list(folder.iterdir())) <= 2


def values(checkpoints: Checkpoints) -> list[float]:
    """The first element of each variable."""
    return [float(variable.value[0, 0]) for variable in checkpoints.variables]


def test_newest_checkpoint_is_restored_completely(tmp_path: Path) -> None:
    save_epochs(tmp_path, 3)
    checkpoints = open_checkpoints(tmp_path)
    assert checkpoints.restore() == 3
    assert checkpoints.history == [{"epoch": epoch, "loss": 1 / epoch} for epoch in (1, 2, 3)]
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
