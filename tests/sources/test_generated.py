"""The generated sample."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from stages.sources import archive, generated

IMAGES = 20
LAYOUT = replace(archive.CIFAR10, batches=dict.fromkeys(archive.CIFAR10.batches, IMAGES))


def test_sample_has_equal_bytes_each_time_and_other_bytes_with_other_seed(tmp_path: Path) -> None:
    for name, seed in {"first": 7, "second": 7, "other": 8}.items():
        generated.write(tmp_path / name, IMAGES, seed)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert (tmp_path / "first").read_bytes() != (tmp_path / "other").read_bytes()


def test_sample_has_all_classes_in_equal_numbers(tmp_path: Path) -> None:
    generated.write(tmp_path / "sample", IMAGES, seed=7)
    for _, images, labels in archive.read_batches(tmp_path / "sample", LAYOUT):
        assert images.shape == (IMAGES, 32, 32, 3)
        assert np.bincount(labels).tolist() == [IMAGES // 10] * 10
