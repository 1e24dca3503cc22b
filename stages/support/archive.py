"""The "CIFAR-10 python version" archive: its layout, read without running anything inside it.

Layout (https://www.cs.toronto.edu/~kriz/cifar.html): a gzip-compressed tar with six pickled
dictionaries `cifar-10-batches-py/{data_batch_1..5,test_batch}`, each with `data`, (N, 3072) uint8,
a picture's red, green and blue planes row by row, and `labels`, N integers from 0 to 9.
"""

import gzip
import io
import pickle
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stages.support.errors import StageError

FOLDER = "cifar-10-batches-py"
TRAIN_BATCHES = [f"data_batch_{number}" for number in range(1, 6)]
TEST_BATCH = "test_batch"
BATCHES = [*TRAIN_BATCHES, TEST_BATCH]
CLASSES = ["airplane", "automobile", "bird", "cat", "deer"]
CLASSES += ["dog", "frog", "horse", "ship", "truck"]


class _BatchUnpickler(pickle.Unpickler):
    """Builds NumPy arrays and plain values and refuses every other global."""

    def find_class(self, module: str, name: str) -> Any:
        # NumPy 2 moved its arrays' constructor; the official archive has the old name.
        if (module, name) in {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
        }:
            return np._core.multiarray._reconstruct  # type: ignore[attr-defined]
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        raise pickle.UnpicklingError(f"it calls {module}.{name}, which is not allowed in pictures")


def _unpickle(content: bytes, pictures: int) -> tuple[np.ndarray, np.ndarray]:
    """One batch as pictures (N, 32, 32, 3) uint8 and labels (N,) uint8, else ValueError."""
    try:
        batch = _BatchUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a broken pickle may raise anything
        raise ValueError(f"not a readable batch: {error}") from None
    if not isinstance(batch, dict) or not {b"data", b"labels"} <= batch.keys():
        raise ValueError("not a dictionary with `data` and `labels`")
    data, labels = batch[b"data"], batch[b"labels"]
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8:
        raise ValueError("`data` is not a uint8 array")
    if data.shape != (pictures, 3072):
        raise ValueError(f"`data` has shape {data.shape} instead of {(pictures, 3072)}")
    if not isinstance(labels, list) or len(labels) != pictures:
        raise ValueError(f"`labels` is not a list of {pictures} numbers")
    if not all(type(label) is int and 0 <= label < len(CLASSES) for label in labels):
        raise ValueError("`labels` has something other than whole numbers from 0 to 9")
    images = data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return images, np.array(labels, np.uint8)


def read_batches(path: Path, pictures: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Give the six batches one at a time, in the archive's order, each of `pictures` pictures.

    Yields (name, pictures (N, 32, 32, 3) uint8, labels (N,) uint8). Raises `StageError` naming file
    and reason where the archive is not whole and of that layout.
    """
    missing = list(BATCHES)
    # Pixels, labels and file names of the official batches come to 3,104 bytes a picture.
    largest = 4096 * pictures + 65536
    member_name = ""
    try:
        with tarfile.open(path, "r:gz") as tar:
            for member in tar:
                member_name = member.name
                folder, _, name = member.name.partition("/")
                if folder != FOLDER or name not in BATCHES:
                    continue
                if name not in missing:
                    raise ValueError("stands twice in the archive")
                if not member.isreg() or member.size > largest:
                    raise ValueError(f"not a regular file of at most {largest} bytes")
                file = tar.extractfile(member)
                assert file is not None  # regular files can be opened
                images, labels = _unpickle(file.read(), pictures)
                missing.remove(name)
                yield name, images, labels
    except ValueError as error:
        raise StageError(f"{path}: {member_name}: {error}") from None
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise StageError(f"{path}: not a whole gzip-compressed tar archive: {error}") from None
    if missing:
        raise StageError(f"{path}: {FOLDER}/{missing[0]} is missing")


def write_batches(path: Path, batches: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Write an archive of that layout: name → (pictures (N, 32, 32, 3) uint8, labels (N,)).

    Equal batches give equal bytes.
    """
    members: dict[str, dict[bytes, Any]] = {
        "batches.meta": {b"label_names": [name.encode() for name in CLASSES], b"num_vis": 3072}
    }
    for name, (images, labels) in batches.items():
        rows = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), 3072)
        members[name] = {b"data": rows, b"labels": [int(label) for label in labels]}
    with (
        path.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, member in members.items():
            content = pickle.dumps(member, protocol=3)
            info = tarfile.TarInfo(f"{FOLDER}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
