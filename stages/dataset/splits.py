"""The splits on disk: memory-mappable arrays, written and read in pieces.

A split is a folder with `x.npy`, (N, 32, 32, 3) float32 in [0, 1], and `y.npy`, (N, 10) float32
one-hot labels.
"""

import math
import os
from pathlib import Path

import numpy as np

from stages.common.errors import StageError

ROW_SHAPES = {"x.npy": (32, 32, 3), "y.npy": (10,)}


def scale(images: np.ndarray) -> np.ndarray:
    """Convert uint8 images to float32 in [0, 1]."""
    return images.astype(np.float32) / 255


def create(folder: Path, count: int) -> None:
    """Create a split of `count` rows, all zero."""
    folder.mkdir()
    for name, row_shape in ROW_SHAPES.items():
        header = {"descr": "<f4", "fortran_order": False, "shape": (count, *row_shape)}
        with (folder / name).open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + 4 * count * math.prod(row_shape))


def write_rows(folder: Path, first: int, x: np.ndarray, y: np.ndarray) -> None:
    """Overwrite rows from `first` on with x and y, float32.

    A full disk raises `OSError` here; through a memory map it would kill the process.
    """
    for name, rows in (("x.npy", x), ("y.npy", y)):
        with (folder / name).open("r+b") as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            file.seek(first * rows[0].nbytes, os.SEEK_CUR)
            file.write(np.ascontiguousarray(rows, "<f4").data)


def map_array(path: Path, row_shape: tuple[int, ...]) -> np.memmap:
    """Memory-map an array (N, *row_shape) float32 with N > 0.

    Raises `ValueError` if the file has no such array, and `OSError`.
    """
    try:
        array: np.memmap = np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # from a damaged header, NumPy's parser raises any of ten kinds
        raise ValueError(f"not a readable array: {error}") from None
    if array.dtype != np.float32 or array.shape[1:] != row_shape or len(array) == 0:
        raise ValueError(f"is {array.dtype} {array.shape}, not float32 {('N', *row_shape)}")
    if not array.flags.c_contiguous:
        raise ValueError("is in Fortran order")
    return array


class Split:
    """A split of `count` images in `folder`, opened for reading.

    Raises `StageError` if its arrays are incomplete or of another shape.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        x, y = (self.map(name) for name in ROW_SHAPES)
        if len(x) != len(y):
            raise StageError(
                f"{folder}: {len(x)} images but {len(y)} labels; run `dvc repro --force preprocess`"
            )
        self.count = len(x)
        self.offsets = {"x.npy": x.offset, "y.npy": y.offset}
        self.files = {name: (folder / name).open("rb") for name in ROW_SHAPES}

    def map(self, name: str) -> np.memmap:
        """Memory-map one of the split's arrays."""
        path = self.folder / name
        try:
            return map_array(path, ROW_SHAPES[name])
        except (OSError, ValueError) as error:
            raise StageError(f"{path}: {error}; run `dvc repro --force preprocess`") from None

    def rows(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Read x (n, 32, 32, 3) and y (n, 10) of the rows at `indices` (n,); thread-safe.

        Read, not mapped: a memory map counts whole megabytes around each row as process memory.
        """
        return self.read("x.npy", indices), self.read("y.npy", indices)

    def read(self, name: str, indices: np.ndarray) -> np.ndarray:
        """Read the rows at `indices` (n,) of one of the split's arrays."""
        file, offset, row_shape = self.files[name].fileno(), self.offsets[name], ROW_SHAPES[name]
        size = 4 * math.prod(row_shape)
        content = b"".join(os.pread(file, size, offset + size * int(index)) for index in indices)
        return np.frombuffer(content, "<f4").reshape(len(indices), *row_shape)

    def labels(self) -> np.ndarray:
        """The class of every image, (N,) integers."""
        classes: np.ndarray = self.map("y.npy").argmax(axis=1)
        return classes
