"""The "CIFAR-10 python version" archive: its layout, read without running anything inside it.

Layout (https://www.cs.toronto.edu/~kriz/cifar.html): a gzip-compressed tar with six pickled
dictionaries `cifar-10-batches-py/{data_batch_1..5,test_batch}`, each with `data`, (N, 3072) uint8,
the red, green and blue planes of an image row by row, and `labels`, N integers from 0 to 9.

Users name their own files, so the reader trusts none of it: the amount of data that it unpacks and
the number of members are limited, and the pickles are read by `plain_pickle`.
"""

import gzip
import io
import pickle
import reprlib
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from stages.common.errors import StageError
from stages.common.hashing import sha256
from stages.sources import plain_pickle
from stages.sources.image_source import ImageSource

OFFICIAL = "official archive"
OFFICIAL_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
FOLDER = "cifar-10-batches-py"
CLASSES = ["airplane", "automobile", "bird", "cat", "deer"]
CLASSES += ["dog", "frog", "horse", "ship", "truck"]
TRAIN_BATCHES = [f"data_batch_{number}" for number in range(1, 6)]
TEST_BATCH = "test_batch"
BATCHES = [*TRAIN_BATCHES, TEST_BATCH]
# Limits of what is read; the official archive has nine members, and 3 opcodes per image.
MAX_MEMBERS = 100
MAX_HEADER_BYTES = 2**16  # of one member, with its long name and its comments
MAX_PADDING = 2**20  # after the last member
MAX_OPCODES_PER_IMAGE = 8


class _Unpacked(io.RawIOBase):
    """The content of a gzip-compressed stream, which ends in `ValueError` where it is too large.

    A small archive can unpack to an endless one, also within a single member: `tarfile` reads names
    and comments of any length and number before it returns the member.
    """

    def __init__(self, packed: BinaryIO, limit: int) -> None:
        self.packed = packed
        self.decompressor = zlib.decompressobj(zlib.MAX_WBITS + 16)  # 16: in gzip's format
        self.limit = limit  # bytes in all
        self.position = 0
        self.content_end = 0  # position after the last nonzero byte
        self.allow(MAX_HEADER_BYTES, "the header of a member")

    def allow(self, count: int, part: str) -> None:
        """Allow `count` bytes more, in which a part of the archive must end."""
        self.part, self.part_limit, self.part_end = part, count, self.position + count

    def readable(self) -> bool:
        return True

    def read(self, size: int = 2**16) -> bytes:
        """At most `size` bytes; none at the end."""
        content = b""
        while not content and not self.decompressor.eof:
            packed = self.decompressor.unconsumed_tail or self.packed.read(2**16)
            if not packed:
                raise EOFError("it ends early")
            content = self.decompressor.decompress(packed, size)
        if filled := len(content.rstrip(b"\0")):
            self.content_end = self.position + filled
        self.position += len(content)
        if self.position > self.limit:
            raise ValueError(f"the archive unpacks to more than {self.limit} bytes")
        if self.position > self.part_end:
            raise ValueError(f"{self.part} unpacks to more than {self.part_limit} bytes")
        return content

    def read_end(self, end: int) -> None:
        """Read to the end; raises `ValueError` if it is more than padding after position `end`."""
        self.allow(MAX_PADDING, "the padding at the archive's end")
        while self.read():
            pass
        if self.content_end > end or self.decompressor.unused_data or self.packed.read(1):
            raise ValueError("there are bytes after the end of the archive, or it is damaged")


def _batch(content: bytes, count: int) -> tuple[np.ndarray, np.ndarray]:
    """One batch: images (count, 32, 32, 3) uint8 and labels (count,) uint8, or `ValueError`."""
    try:
        batch = plain_pickle.load(content, MAX_OPCODES_PER_IMAGE * count + 1000)
    except ValueError as error:
        raise ValueError(f"not a readable batch: {error!s:.200}") from None
    if not isinstance(batch, dict) or not {b"data", b"labels"} <= batch.keys():
        raise ValueError("not a dictionary with `data` and `labels`")
    images = _pixels(batch[b"data"], count).reshape(count, 3, 32, 32).transpose(0, 2, 3, 1)
    labels = batch[b"labels"]
    if not isinstance(labels, list) or len(labels) != count:
        raise ValueError(f"`labels` is not a list of {count} numbers")
    if not all(type(label) is int and 0 <= label < len(CLASSES) for label in labels):
        raise ValueError("`labels` contains something other than integers from 0 to 9")
    return images, np.array(labels, np.uint8)


def _pixels(data: object, count: int) -> np.ndarray:
    """A pickled array, (count, 3072) uint8; raises `ValueError` if it is anything else."""
    if not isinstance(data, plain_pickle.Array):
        raise ValueError("`data` is not a uint8 array")
    match data.state:
        case (
            _,
            tuple() as shape,
            plain_pickle.Dtype(code=code),
            int() as by_column,
            bytes(pixels),
        ):
            pass
        case _:
            raise ValueError("`data` is not a complete array")
    if code not in ("u1", b"u1"):  # bytes in the official archive, which Python 2 wrote
        raise ValueError("`data` is not a uint8 array")
    if shape != (count, 3072) or len(pixels) != count * 3072:
        raise ValueError(f"`data` has shape {reprlib.repr(shape)} instead of {(count, 3072)}")
    return np.frombuffer(pixels, np.uint8).reshape(shape, order="F" if by_column else "C")


def _members(
    tar: tarfile.TarFile, unpacked: _Unpacked, max_bytes: int
) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yield name and content of each file; raises `ValueError` for members of any other kind."""
    for _ in range(MAX_MEMBERS):
        unpacked.allow(MAX_HEADER_BYTES, "the header of a member")
        member = tar.next()
        if member is None:
            return
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{member.name:.100}: points outside the archive's folder")
        if member.isdir():
            continue
        if not member.isreg() or member.issparse() or member.size > max_bytes:
            raise ValueError(f"{member.name:.100}: not a regular file of at most {max_bytes} bytes")
        unpacked.allow(member.size + MAX_HEADER_BYTES, "a member")
        file = tar.extractfile(member)
        assert file is not None  # regular files can be opened
        yield path, file.read()
    raise ValueError(f"more than {MAX_MEMBERS} members")


def read_batches(
    path: Path, images_per_file: int, name: object = None
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield the six batches one at a time, in the archive's order, without unpacking to disk.

    Each is (name, images (images_per_file, 32, 32, 3) uint8, labels (images_per_file,) uint8).
    Raises `StageError` with file and reason if the archive is incomplete or has another layout;
    `name` is the file's name in the message, if not `path`.
    """
    name = name or path
    missing = list(BATCHES)
    # The official batches have 3,104 bytes per image: pixels, label and file name.
    max_bytes = 4096 * images_per_file + 65536
    try:
        with path.open("rb") as packed:
            unpacked = _Unpacked(packed, len(BATCHES) * max_bytes + 2**20)
            with tarfile.open(fileobj=unpacked, mode="r|") as tar:
                for member, content in _members(tar, unpacked, max_bytes):
                    if member.parent != PurePosixPath(FOLDER) or member.name not in BATCHES:
                        continue
                    if member.name not in missing:
                        raise ValueError(f"{member}: occurs twice in the archive")
                    try:
                        images, labels = _batch(content, images_per_file)
                    except ValueError as error:
                        raise ValueError(f"{member}: {error}") from None
                    missing.remove(member.name)
                    yield member.name, images, labels
                unpacked.read_end(tar.offset)
    except ValueError as error:
        raise StageError(f"{name}: {error}") from None
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise StageError(f"{name}: not a complete gzip-compressed tar archive: {error}") from None
    if missing:
        raise StageError(f"{name}: {FOLDER}/{missing[0]} is missing")


def image_source(path: Path, images_per_file: int) -> ImageSource:
    """The images of an archive: five files of training images and one of test images."""
    return ImageSource(
        path=path,
        classes=CLASSES,
        image_shape=(32, 32, 3),
        train_count=images_per_file * len(TRAIN_BATCHES),
        test_count=images_per_file,
        dtype=np.dtype(np.float32),
        batches=(
            (BATCHES.index(name) * images_per_file, images, labels)
            for name, images, labels in read_batches(path, images_per_file)
        ),
        provenance=provenance(path),
    )


def provenance(path: Path) -> dict[str, str]:
    """An archive's SHA-256 and origin: the official server, what its comment says, or unknown."""
    checksum, origin = sha256(path), "unknown"
    if checksum == OFFICIAL_SHA256:
        origin = OFFICIAL
    else:
        with (
            suppress(ValueError, tarfile.TarError, EOFError, zlib.error),
            path.open("rb") as packed,
            tarfile.open(fileobj=_Unpacked(packed, MAX_HEADER_BYTES), mode="r|") as tar,
        ):
            origin = str(tar.pax_headers.get("comment", origin))
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
