"""What the preprocess stage reads, whatever the data set."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np


class Batch(NamedTuple):
    """Some images of a source, in the order of their rows, and the files that could not be read."""

    rows: np.ndarray  # (n,) integers; a row that is missing could not be read
    images: np.ndarray  # (n, H, W, 3) uint8
    labels: np.ndarray  # (n,) integers
    skipped: list[str]  # unreadable files, and why


@dataclass(frozen=True)
class Images:
    """Square images of one size: first the training images, then the test images."""

    classes: list[str]  # in the order of their labels
    files: list[str]  # the name of each image
    size: int  # pixels
    train_count: int
    test_count: int
    batches: Iterable[Batch]
    left_out: dict[str, int] = field(default_factory=dict)  # other files of a folder, by suffix


def from_arrays(
    classes: list[str], train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]
) -> Images:
    """Images (N, H, H, 3) uint8 and labels (N,) integers that fit into memory."""
    images, labels = (np.concatenate(arrays) for arrays in zip(train, test, strict=True))
    batch = Batch(np.arange(len(labels)), images, labels, [])
    counts = {"train": len(train[1]), "test": len(test[1])}
    files = [f"{split}-{number:05}" for split, count in counts.items() for number in range(count)]
    return Images(classes, files, images.shape[1], counts["train"], counts["test"], [batch])
