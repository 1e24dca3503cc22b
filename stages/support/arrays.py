"""A split of the prepared pictures on disk: written and read in pieces.

A split is a folder with `x.npy`, (N, 32, 32, 3) float32 in [0, 1], and `y.npy`, (N, 10) float32
one-hot labels.
"""

import math
import os
from pathlib import Path

import numpy as np

from stages.support.errors import StageError

ROW_SHAPES = {"x.npy": (32, 32, 3), "y.npy": (10,)}


def create(folder: Path, count: int) -> None:
    """Make the folder and its two arrays of `count` rows, all zero."""
    folder.mkdir()
    for name, row_shape in ROW_SHAPES.items():
        header = {"descr": "<f4", "fortran_order": False, "shape": (count, *row_shape)}
        with (folder / name).open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + 4 * count * math.prod(row_shape))


def write_rows(folder: Path, first: int, x: np.ndarray, y: np.ndarray) -> None:
    """Replace the rows from `first` on by those of x and y, float32.

    A full disk raises `OSError` here; written through a memory map it would kill the process.
    """
    for name, rows in (("x.npy", x), ("y.npy", y)):
        with (folder / name).open("r+b") as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            file.seek(first * rows[0].nbytes, os.SEEK_CUR)
            file.write(np.ascontiguousarray(rows, "<f4").data)


class Split:
    """A split in `folder` that another stage has written, with `count` pictures.

    `StageError` where its arrays are not whole or of another shape.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        x, y = (self.map(name) for name in ROW_SHAPES)
        if len(x) != len(y):
            raise StageError(
                f"{folder}: {len(x)} pictures but {len(y)} labels; run `dvc repro --force "
                "preprocess`"
            )
        self.count = len(x)
        self.starts = {"x.npy": x.offset, "y.npy": y.offset}
        self.files = {name: (folder / name).open("rb") for name in ROW_SHAPES}

    def map(self, name: str) -> np.memmap:
        """Memory-map one of the split's arrays."""
        path = self.folder / name
        try:
            array: np.memmap = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            reason = str(error)
        else:
            expected = ROW_SHAPES[name]
            if array.dtype == np.float32 and array.shape[1:] == expected and len(array) > 0:
                return array
            reason = f"holds {array.dtype} {array.shape}, not float32 {('N', *expected)}"
        raise StageError(f"{path}: {reason}; run `dvc repro --force preprocess`")

    def rows(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Read the rows of these numbers: x (n, 32, 32, 3) and y (n, 10); from any thread.

        Read, not mapped: a map counts as the process's memory with whole megabytes around a row.
        """
        return self.read("x.npy", rows), self.read("y.npy", rows)

    def read(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Read the rows of these numbers from one of the split's arrays."""
        file, start, shape = self.files[name].fileno(), self.starts[name], ROW_SHAPES[name]
        size = 4 * math.prod(shape)
        content = b"".join(os.pread(file, size, start + size * int(row)) for row in rows)
        return np.frombuffer(content, "<f4").reshape(len(rows), *shape)

    def labels(self) -> np.ndarray:
        """The class of every picture, (N,) integers."""
        classes: np.ndarray = self.map("y.npy").argmax(axis=1)
        return classes
