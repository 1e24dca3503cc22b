"""The splits on disk: memory-mappable arrays, written and read in pieces.

A split is a folder with `x.npy`, images (N, H, W, 3), and `y.npy`, one-hot labels (N, K). Both are
float32, with images in [0, 1], or uint8, with images from 0 to 255, in a quarter of the space. Read
as float32, they are the same.
"""

import math
import os
from pathlib import Path

import numpy as np

from stages.common.errors import StageError

ARRAYS = ("x.npy", "y.npy")
REMEDY = "run `dvc repro --force preprocess`"


def scale(images: np.ndarray) -> np.ndarray:
    """Convert uint8 images to float32 in [0, 1]."""
    return images.astype(np.float32) / 255


def write_header(folder: Path, name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Write the header of an array, so that the file has exactly the size of that shape."""
    header = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": shape,
    }
    path = folder / name
    with path.open("r+b" if path.exists() else "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + dtype.itemsize * math.prod(shape))


def create(
    folder: Path, count: int, image_shape: tuple[int, ...], classes: int, dtype: np.dtype
) -> None:
    """Create a split of `count` rows, all zero."""
    folder.mkdir()
    for name, row_shape in zip(ARRAYS, (image_shape, (classes,)), strict=True):
        write_header(folder, name, (count, *row_shape), dtype)


def write_rows(folder: Path, first: int, images: np.ndarray, labels: np.ndarray) -> None:
    """Overwrite rows from `first` on, given images (n, H, W, 3) uint8 and labels (n,) integers.

    A full disk raises `OSError` here; through a memory map it would kill the process.
    """
    for name in ARRAYS:
        with (folder / name).open("r+b") as file:
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            if name == "y.npy":
                rows = np.eye(shape[1], dtype=dtype)[labels]
            else:
                rows = images if dtype == np.uint8 else scale(images)
            file.seek(first * rows[0].nbytes, os.SEEK_CUR)
            file.write(np.ascontiguousarray(rows, dtype).data)


def remove_rows(folder: Path, removed: np.ndarray) -> None:
    """Remove the rows at these indices; the others move up."""
    for name in ARRAYS:
        with (folder / name).open("r+b") as file:
            np.lib.format.read_magic(file)
            (count, *row_shape), _, dtype = np.lib.format.read_array_header_1_0(file)
            offset, size = file.tell(), dtype.itemsize * math.prod(row_shape)
            kept = np.delete(np.arange(count), removed)
            for target, source in enumerate(kept):
                if target != source:
                    row = os.pread(file.fileno(), size, offset + size * int(source))
                    os.pwrite(file.fileno(), row, offset + size * target)
        # The header keeps its size: NumPy pads it so that the number of rows may grow.
        write_header(folder, name, (len(kept), *row_shape), dtype)


def map_array(
    path: Path, row_shape: tuple[int | None, ...], dtypes: tuple[str, ...] = ("float32",)
) -> np.memmap:
    """Memory-map an array (N, *row_shape) of one of these types with N > 0; None is any size.

    Raises `ValueError` if the file has no such array, and `OSError`.
    """
    try:
        array: np.memmap = np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # from a damaged header, NumPy's parser raises any of ten kinds
        raise ValueError(f"not a readable array: {error}") from None
    sizes = array.shape[1:]
    fits = len(sizes) == len(row_shape) and all(
        size == expected or (expected is None and size > 0)
        for size, expected in zip(sizes, row_shape, strict=True)
    )
    if array.dtype not in dtypes or not fits or len(array) == 0:
        expected_shape = ("N", *("any" if size is None else size for size in row_shape))
        raise ValueError(
            f"is {array.dtype} {array.shape}, not {' or '.join(dtypes)} {expected_shape}"
        )
    if not array.flags.c_contiguous:
        raise ValueError("is in Fortran order")
    return array


class Split:
    """A split of `count` images in `folder`, opened for reading.

    `image_shape` is (height, width, 3), `classes` the number of classes. Raises `StageError` if the
    arrays are incomplete or do not belong together.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        x, y = self.map("x.npy", (None, None, 3)), self.map("y.npy", (None,))
        if len(x) != len(y):
            raise StageError(f"{folder}: {len(x)} images but {len(y)} labels; {REMEDY}")
        if x.dtype != y.dtype:
            raise StageError(f"{folder}: images are {x.dtype}, labels {y.dtype}; {REMEDY}")
        self.count, self.dtype = len(x), x.dtype
        self.image_shape: tuple[int, int, int] = x.shape[1:]
        self.classes: int = y.shape[1]
        self.row_shapes = {"x.npy": self.image_shape, "y.npy": (self.classes,)}
        self.offsets = {"x.npy": x.offset, "y.npy": y.offset}
        self.files = {name: (folder / name).open("rb") for name in ARRAYS}

    def map(self, name: str, row_shape: tuple[int | None, ...]) -> np.memmap:
        """Memory-map one of the split's arrays."""
        path = self.folder / name
        try:
            return map_array(path, row_shape, ("float32", "uint8"))
        except (OSError, ValueError) as error:
            raise StageError(f"{path}: {error}; {REMEDY}") from None

    def rows(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Read x (n, H, W, 3) and y (n, K) of the rows at `indices` (n,); thread-safe.

        Read, not mapped: a memory map counts whole megabytes around each row as process memory.
        """
        return self.read("x.npy", indices), self.read("y.npy", indices)

    def read(self, name: str, indices: np.ndarray) -> np.ndarray:
        """Read the rows at `indices` (n,) of one of the split's arrays, as float32."""
        file, offset, row_shape = (
            self.files[name].fileno(),
            self.offsets[name],
            self.row_shapes[name],
        )
        size = self.dtype.itemsize * math.prod(row_shape)
        content = b"".join(os.pread(file, size, offset + size * int(index)) for index in indices)
        rows = np.frombuffer(content, self.dtype).reshape(len(indices), *row_shape)
        if name == "x.npy" and self.dtype == np.uint8:
            return scale(rows)
        return rows.astype(np.float32, copy=False)

    def labels(self) -> np.ndarray:
        """The class of every image, (N,) integers."""
        classes: np.ndarray = self.map("y.npy", (self.classes,)).argmax(axis=1)
        return classes


class Selection:
    """Rows of several splits as one: `count` images with the splits' `row_shapes`.

    Each part is a split and the indices (n,) of the rows selected from it.
    """

    def __init__(self, *parts: tuple[Split, np.ndarray]) -> None:
        self.splits = [split for split, _ in parts]
        sizes = [len(indices) for _, indices in parts]
        self.split_numbers = np.repeat(np.arange(len(parts)), sizes)
        self.indices = np.concatenate([indices for _, indices in parts])
        self.count, self.row_shapes = len(self.indices), self.splits[0].row_shapes

    def rows(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Read x (n, H, W, 3) and y (n, K), float32, of the rows at `indices` (n,); thread-safe."""
        x, y = (np.empty((len(indices), *shape), np.float32) for shape in self.row_shapes.values())
        for number, split in enumerate(self.splits):
            of_split = self.split_numbers[indices] == number
            x[of_split], y[of_split] = split.rows(self.indices[indices[of_split]])
        return x, y


def kept_for_validation(count: int, share: float) -> int:
    """The number of images, at least one, in a share of `count` validation images."""
    return max(1, round(share * count))


def keep_for_validation(
    training: Split, validation: Split, share: float, seed: int
) -> tuple[Split | Selection, Split | Selection]:
    """Training and validation images if a random share of the latter is kept for validation.

    The others are training images. Without others it is the splits themselves, which are faster to
    read than a selection.
    """
    order = np.random.default_rng(seed).permutation(validation.count)
    kept, moved = np.split(order, [kept_for_validation(validation.count, share)])
    if not len(moved):
        return training, validation
    return (
        Selection((training, np.arange(training.count)), (validation, np.sort(moved))),
        Selection((validation, np.sort(kept))),
    )


def check_same_rows(splits: list[Split]) -> None:
    """Raise `StageError` unless these splits have images of one size and the same classes."""
    for split in splits[1:]:
        if split.row_shapes != splits[0].row_shapes:
            raise StageError(
                f"{split.folder}: has {split.row_shapes}, but {splits[0].folder} "
                f"{splits[0].row_shapes}; {REMEDY}"
            )
