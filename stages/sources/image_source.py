"""What the preprocess stage reads, whether it comes from an archive or from a folder."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass
class ImageSource:
    """Images of one size: first the training images, then the test images.

    `batches` yields (first row, images (n, H, W, 3) uint8, labels (n,) integers) in any order. When
    all have been read, `skipped` has the rows whose images could not be read, and why.
    """

    path: Path  # of the archive or the folder
    classes: list[str]
    image_shape: tuple[int, int, int]
    train_count: int
    test_count: int
    dtype: np.dtype  # of the prepared arrays, float32 or uint8
    batches: Iterable[tuple[int, np.ndarray, np.ndarray]]
    provenance: dict[str, str]
    skipped: dict[int, str] = field(default_factory=dict)
