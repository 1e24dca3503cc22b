"""The splits on disk: memory-mappable arrays, written and read in pieces.

A split is a folder with `x.npy`, images (N, H, W, 3) uint8, and `y.npy`, their labels (N,) uint16.
During training it may have float32 features in place of images.
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stages.common.errors import reading
from stages.common.params import ModelParams


def scale(images: np.ndarray) -> np.ndarray:
    """Convert uint8 images to float32 in [0, 1]; features are float32 already."""
    return images.astype(np.float32) / 255 if images.dtype == np.uint8 else images


def prediction_batch_size(image_shape: Sequence[int]) -> int:
    """How many images of a shape, (height, width, ...), a model predicts at once.

    Bounded by their pixels, so that memory does not grow with the images' size. The number affects
    speed, and the last digits: those of CIFAR-10's recorded results are those of 250.
    """
    return max(1, min(250, 250 * 64 * 64 // math.prod(image_shape[:2])))


class SplitWriter:
    """Writes a split to a new folder, so that memory does not grow with the number of images."""

    def __init__(self, folder: Path, image_size: int) -> None:
        folder.mkdir()
        self.folder, self.image_size = folder, image_size
        self.labels = np.empty(0, np.uint16)
        self.file = (folder / "x.npy").open("wb")
        self.write_header()

    def write_header(self) -> None:
        """Write the header of the images so far; NumPy pads it so that their number may grow."""
        shape = (len(self.labels), self.image_size, self.image_size, 3)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        self.file.seek(0)
        np.lib.format.write_array_header_1_0(self.file, header)

    def append(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Append images (n, H, W, 3) uint8 and their labels (n,)."""
        self.file.write(np.ascontiguousarray(images).data)
        self.labels = np.concatenate([self.labels, labels.astype(np.uint16)])

    def close(self) -> None:
        """Complete the split."""
        self.write_header()
        self.file.close()
        np.save(self.folder / "y.npy", self.labels)


class Split:
    """A split of `count` images of `image_shape`, (height, width, 3), opened for reading.

    `labels` are (count,) uint16. Raises `StageError` if the arrays are damaged.
    """

    def __init__(self, folder: Path) -> None:
        with reading(folder):
            x = np.lib.format.open_memmap(folder / "x.npy", mode="r")
            self.labels: np.ndarray = np.load(folder / "y.npy")
            self.count, *image_shape = x.shape
            if len(self.labels) != self.count:
                raise ValueError(f"{self.count} images but {len(self.labels)} labels")
            self.image_shape: tuple[int, ...] = tuple(image_shape)
            self.offset, self.dtype = x.offset, x.dtype
            self.file = (folder / "x.npy").open("rb")

    def images(self, rows: np.ndarray) -> np.ndarray:
        """Read the images of these rows (n,): (n, H, W, 3) uint8; thread-safe.

        Read, not mapped: a memory map counts whole megabytes around each row as process memory.
        """
        size, file = math.prod(self.image_shape) * self.dtype.itemsize, self.file.fileno()
        content = b"".join(os.pread(file, size, self.offset + size * int(row)) for row in rows)
        return np.frombuffer(content, self.dtype).reshape(len(rows), *self.image_shape)


class Selection:
    """Rows of several splits as one split.

    Each part is a split and the rows (n,) selected from it.
    """

    def __init__(self, *parts: tuple[Split, np.ndarray]) -> None:
        self.splits = [split for split, _ in parts]
        self.split_numbers = np.repeat(np.arange(len(parts)), [len(rows) for _, rows in parts])
        self.rows = np.concatenate([rows for _, rows in parts])
        self.labels = np.concatenate([split.labels[rows] for split, rows in parts])
        self.count, self.image_shape = len(self.rows), self.splits[0].image_shape

    def images(self, rows: np.ndarray) -> np.ndarray:
        """Read the images of these rows (n,): (n, H, W, 3) uint8; thread-safe."""
        images = np.empty((len(rows), *self.image_shape), np.uint8)
        for number, split in enumerate(self.splits):
            of_split = self.split_numbers[rows] == number
            images[of_split] = split.images(self.rows[rows[of_split]])
        return images


def validation_count(count: int, settings: ModelParams) -> int:
    """How many of `count` validation images a model does not train on."""
    share = round(settings.validation_share * count)
    return min(count, max(share, settings.min_validation_images))


def select(
    training: Split, validation: Split, settings: ModelParams, seed: int
) -> tuple[Split | Selection, Split | Selection]:
    """What a model trains on and is validated with, as a random share of `validation` is left out.

    The other validation images are training images. Without others it is the splits themselves,
    which are faster to read than a selection.
    """
    order = np.random.default_rng(seed).permutation(validation.count)
    left_out, moved = np.split(order, [validation_count(validation.count, settings)])
    if not len(moved):
        return training, validation
    return (
        Selection((training, np.arange(training.count)), (validation, np.sort(moved))),
        Selection((validation, np.sort(left_out))),
    )
