"""The "CIFAR-10 python version" archive: its layout, read without running anything inside it.

Layout (https://www.cs.toronto.edu/~kriz/cifar.html): a gzip-compressed tar with six pickled
dictionaries `cifar-10-batches-py/{data_batch_1..5,test_batch}`, each with `data`, (N, 3072) uint8,
the red, green and blue planes of an image row by row, and `labels`, N integers from 0 to 9.

The reader is own code on purpose: `pickle.load` would run whatever code a file contains, and users
name their own files.
"""

import gzip
import io
import pickle
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np

from stages.common.errors import StageError
from stages.common.hashing import sha256
from stages.dataset.classes import CLASSES

OFFICIAL_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
FOLDER = "cifar-10-batches-py"
TRAIN_BATCHES = [f"data_batch_{number}" for number in range(1, 6)]
TEST_BATCH = "test_batch"
BATCHES = [*TRAIN_BATCHES, TEST_BATCH]
MAX_MEMBERS = 100  # the official archive has nine


class _Bounded(io.RawIOBase):
    """A stream of at most `limit` bytes: a small archive can unpack to an endless one."""

    def __init__(self, stream: gzip.GzipFile, limit: int) -> None:
        self.stream, self.limit = stream, limit
        self.position = 0
        self.content_end = 0  # position after the last nonzero byte

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        remaining = self.limit - self.position
        content = self.stream.read(size if 0 <= size <= remaining else remaining + 1)
        if len(content) > remaining:
            raise ValueError(f"the archive unpacks to more than {self.limit} bytes")
        if filled := len(content.rstrip(b"\0")):
            self.content_end = self.position + filled
        self.position += len(content)
        return content


class _Dtype:
    """The type code of a pickled `numpy.dtype`."""

    def __init__(self, code: object = None, *_: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        """Ignore byte order and alignment, which single bytes do not have."""


class _Array:
    """The parts of a pickled NumPy array as plain values; none of NumPy's code runs."""

    state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state

    def pixels(self, count: int) -> np.ndarray:
        """The array, (count, 3072) uint8; raises `ValueError` if it is anything else."""
        match self.state:
            case (_, tuple() as shape, _Dtype(code=code), int() as column_major, bytes() as data):
                pass
            case _:
                raise ValueError("`data` is not a complete array")
        if code not in ("u1", b"u1"):  # bytes in the official archive, which Python 2 wrote
            raise ValueError("`data` is not a uint8 array")
        if shape != (count, 3072) or len(data) != count * 3072:
            raise ValueError(f"`data` has shape {shape!r:.60} instead of {(count, 3072)}")
        return np.frombuffer(data, np.uint8).reshape(shape, order="F" if column_major else "C")


class _BatchUnpickler(pickle.Unpickler):
    """Builds plain values and `_Array`; refuses all globals but NumPy's array constructors."""

    constructors: ClassVar[dict[tuple[str, str], Any]] = {
        # The official archive has the name that NumPy 2 changed.
        ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Array(),
        ("numpy._core.multiarray", "_reconstruct"): lambda *_: _Array(),
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.constructors[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it calls {module}.{name}, which is not allowed in a data set"
            ) from None


def _unpickle(content: bytes, count: int) -> tuple[np.ndarray, np.ndarray]:
    """One batch: images (count, 32, 32, 3) uint8 and labels (count,) uint8, or `ValueError`."""
    stream = io.BytesIO(content)
    try:
        batch = _BatchUnpickler(stream, encoding="bytes").load()
    except Exception as error:  # a broken pickle can raise anything
        raise ValueError(f"not a readable batch: {error!s:.200}") from None
    if stream.read(1):
        raise ValueError("not a readable batch: there are bytes after its end")
    if not isinstance(batch, dict) or not {b"data", b"labels"} <= batch.keys():
        raise ValueError("not a dictionary with `data` and `labels`")
    data, labels = batch[b"data"], batch[b"labels"]
    if not isinstance(data, _Array):
        raise ValueError("`data` is not a uint8 array")
    images = data.pixels(count).reshape(count, 3, 32, 32).transpose(0, 2, 3, 1)
    if not isinstance(labels, list) or len(labels) != count:
        raise ValueError(f"`labels` is not a list of {count} numbers")
    if not all(type(label) is int and 0 <= label < len(CLASSES) for label in labels):
        raise ValueError("`labels` contains something other than integers from 0 to 9")
    return images, np.array(labels, np.uint8)


def _members(tar: tarfile.TarFile, max_bytes: int) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yield name and content of each file; raises `ValueError` for members of any other kind."""
    for number, member in enumerate(tar):
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{path}: points outside the archive's folder")
        if member.isdir():
            continue
        if not member.isreg() or member.size > max_bytes:
            raise ValueError(f"{path}: not a regular file of at most {max_bytes} bytes")
        if number >= MAX_MEMBERS:
            raise ValueError(f"{path}: more than {MAX_MEMBERS} members")
        file = tar.extractfile(member)
        assert file is not None  # regular files can be opened
        yield path, file.read()


def read_batches(path: Path, images_per_file: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield the six batches one at a time, in the archive's order, without unpacking to disk.

    Each is (name, images (images_per_file, 32, 32, 3) uint8, labels (images_per_file,) uint8).
    Raises `StageError` with file and reason if the archive is incomplete or has another layout.
    """
    missing = list(BATCHES)
    # The official batches have 3,104 bytes per image: pixels, label and file name.
    max_bytes = 4096 * images_per_file + 65536
    try:
        with gzip.open(path) as packed:
            unpacked = _Bounded(packed, len(BATCHES) * max_bytes + 2**20)
            with tarfile.open(fileobj=unpacked, mode="r|") as tar:
                for member, content in _members(tar, max_bytes):
                    if member.parent != PurePosixPath(FOLDER) or member.name not in BATCHES:
                        continue
                    if member.name not in missing:
                        raise ValueError(f"{member}: occurs twice in the archive")
                    try:
                        images, labels = _unpickle(content, images_per_file)
                    except ValueError as error:
                        raise ValueError(f"{member}: {error}") from None
                    missing.remove(member.name)
                    yield member.name, images, labels
                end = tar.offset
            unpacked.read()
            if unpacked.content_end > end:
                raise ValueError("there are bytes after the end of the archive, or it is damaged")
    except ValueError as error:
        raise StageError(f"{path}: {error}") from None
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise StageError(f"{path}: not a complete gzip-compressed tar archive: {error}") from None
    if missing:
        raise StageError(f"{path}: {FOLDER}/{missing[0]} is missing")


def provenance(path: Path) -> dict[str, str]:
    """An archive's SHA-256 and origin: official, or what its comment says."""
    checksum = sha256(path)
    if checksum == OFFICIAL_SHA256:
        origin = "official archive"
    else:
        with tarfile.open(path) as tar:
            origin = tar.pax_headers.get("comment", "unknown")
    return {"archive": origin, "archive_sha256": checksum}


def write_batches(
    path: Path, batches: dict[str, tuple[np.ndarray, np.ndarray]], comment: str
) -> None:
    """Write an archive of that layout: name → (images (N, 32, 32, 3) uint8, labels (N,)).

    The comment names their origin; it is a pax comment, like the commit in `git archive`. Equal
    arguments give equal bytes.
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
        tarfile.open(fileobj=packed, mode="w", pax_headers={"comment": comment}) as tar,
    ):
        for name, member in members.items():
            content = pickle.dumps(member, protocol=3)
            info = tarfile.TarInfo(f"{FOLDER}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
