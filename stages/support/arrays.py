"""A split of the prepared pictures on disk: written in pieces, memory-mapped when read.

A split is a folder with `x.npy`, (N, 32, 32, 3) float32 in [0, 1], and `y.npy`, (N, 10) float32
one-hot labels.
"""

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
            file.truncate(file.tell() + 4 * count * int(np.prod(row_shape)))


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


def load(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Memory-map a split's x and y; `StageError` where they are not whole or of another shape."""
    split = []
    for name, row_shape in ROW_SHAPES.items():
        path = folder / name
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            reason = str(error)
        else:
            if array.dtype == np.float32 and array.shape[1:] == row_shape and len(array) > 0:
                split.append(array)
                continue
            reason = f"holds {array.dtype} {array.shape}, not float32 {('N', *row_shape)}"
        raise StageError(f"{path}: {reason}; run `dvc repro --force preprocess`")
    x, y = split
    if len(x) != len(y):
        raise StageError(
            f"{folder}: {len(x)} pictures but {len(y)} labels; run `dvc repro --force preprocess`"
        )
    return x, y
