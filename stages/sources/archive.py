"""The "python version" archives of CIFAR-10 and CIFAR-100, read without running anything in them.

Such an archive (https://www.cs.toronto.edu/~kriz/cifar.html) is a gzip-compressed tar of pickled
dictionaries. Each batch has `data`, (N, 3072) uint8, the red, green and blue planes of an image row
by row, and a list of N labels; one more file has the class names. `Layout` has what differs.

Users name their own files, so the reader trusts none of it: the amount of data that it unpacks and
the number of members are limited, and the pickles are read by `plain_pickle`.
"""

import gzip
import io
import itertools
import pickle
import reprlib
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar

import numpy as np

from stages.common import params, paths
from stages.common.errors import StageError
from stages.common.hashing import sha256
from stages.sources import plain_pickle
from stages.sources.image_source import ImageSource

OFFICIAL = "official archive"
REMEDY = "move or replace this file"
# The class names in archives that this project writes.
CLASSES = ["airplane", "automobile", "bird", "cat", "deer"]
CLASSES += ["dog", "frog", "horse", "ship", "truck"]


@dataclass(frozen=True)
class Layout:
    """What an archive contains, and the SHA-256 of the official one."""

    data_set: str  # as its authors write it
    file: str  # name of the archive
    official_sha256: str
    folder: str
    batches: dict[str, int]  # number of images by file, in order; the last file is for testing
    labels: str  # key in a batch
    meta: str  # the file with the class names
    class_names: str  # key in that file
    classes: int


CIFAR10 = Layout(
    data_set="CIFAR-10",
    file="cifar-10-python.tar.gz",
    official_sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    folder="cifar-10-batches-py",
    batches={f"data_batch_{number}": 10_000 for number in range(1, 6)} | {"test_batch": 10_000},
    labels="labels",
    meta="batches.meta",
    class_names="label_names",
    classes=10,
)
CIFAR100 = Layout(
    data_set="CIFAR-100",
    file="cifar-100-python.tar.gz",
    official_sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
    folder="cifar-100-python",
    batches={"train": 50_000, "test": 10_000},
    labels="fine_labels",
    meta="meta",
    class_names="fine_label_names",
    classes=100,
)

Parsed = TypeVar("Parsed")

# Limits of what is read; the official archives have up to nine members and 4 opcodes per image.
MAX_MEMBERS = 100
MAX_HEADER_BYTES = 2**16  # of one member, with its long name and its comments
MAX_PADDING = 2**20  # after the last member
MAX_OPCODES_PER_IMAGE = 8
MAX_META_BYTES = 2**16
MAX_CLASS_NAME = 255  # characters


def of_data_set(settings: params.Params) -> tuple[Path, Layout]:
    """The path where the fetch stage writes the archive of the data set, and its layout."""
    layout = CIFAR100 if settings.dataset == "cifar100" else CIFAR10
    if settings.dataset == "sample":
        count = settings.sample.images_per_file
        layout = replace(layout, batches=dict.fromkeys(layout.batches, count))
    return paths.ARCHIVES / settings.dataset / layout.file, layout


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


def _dictionary(content: bytes, max_opcodes: int, *keys: str) -> list[object]:
    """The values of these keys in a pickled dictionary, or `ValueError`."""
    try:
        values = plain_pickle.load(content, max_opcodes)
    except ValueError as error:
        raise ValueError(f"not a readable pickle: {error!s:.200}") from None
    names = " and ".join(f"`{key}`" for key in keys)
    if not isinstance(values, dict) or not {key.encode() for key in keys} <= values.keys():
        raise ValueError(f"not a dictionary with {names}")
    return [values[key.encode()] for key in keys]


def _batch(content: bytes, count: int, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """One batch: images (count, 32, 32, 3) uint8 and labels (count,) uint8, or `ValueError`."""
    max_opcodes = MAX_OPCODES_PER_IMAGE * count + 1000
    data, labels = _dictionary(content, max_opcodes, "data", layout.labels)
    images = _pixels(data, count).reshape(count, 3, 32, 32).transpose(0, 2, 3, 1)
    if not isinstance(labels, list) or len(labels) != count:
        raise ValueError(f"`{layout.labels}` is not a list of {count} numbers")
    if not all(type(label) is int and 0 <= label < layout.classes for label in labels):
        raise ValueError(
            f"`{layout.labels}` contains something other than integers from 0 to "
            f"{layout.classes - 1}"
        )
    return images, np.array(labels, np.uint8)


def _class_names(content: bytes, layout: Layout) -> list[str]:
    """The class names in the order of their labels, or `ValueError`."""
    if len(content) > MAX_META_BYTES:
        raise ValueError(f"larger than {MAX_META_BYTES} bytes")
    (names,) = _dictionary(content, len(content), layout.class_names)
    if not isinstance(names, list) or len(names) != layout.classes:
        raise ValueError(f"`{layout.class_names}` is not a list of {layout.classes} names")
    decoded: list[str] = []
    for name in names:
        try:
            text = name.decode() if isinstance(name, bytes) else name  # bytes: by Python 2
        except UnicodeDecodeError:
            text = None
        if not isinstance(text, str) or not text.isprintable() or text != text.strip():
            raise ValueError(f"{reprlib.repr(name)} is not a class name of printable characters")
        if not 0 < len(text) <= MAX_CLASS_NAME or text in decoded:
            raise ValueError(
                f"{reprlib.repr(text)}: class names are distinct, with 1 to {MAX_CLASS_NAME} "
                "characters"
            )
        decoded.append(text)
    return decoded


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


def _read(
    path: Path, layout: Layout, parse: Callable[[str, bytes], Parsed], name: object = None
) -> Iterator[tuple[str, Parsed]]:
    """Yield name and parsed content of the layout's files one at a time, in the archive's order.

    Raises `StageError` with file and reason if `parse` raises `ValueError`, or if the archive is
    incomplete or damaged; `name` is the archive's name in the message, if not `path`.
    """
    name = name or path
    missing = [*layout.batches, layout.meta]
    # The official batches have 3,105 bytes per image: pixels, labels and file name.
    limits = [4096 * count + 65536 for count in layout.batches.values()]
    try:
        with path.open("rb") as packed:
            unpacked = _Unpacked(packed, sum(limits) + 2**20)
            with tarfile.open(fileobj=unpacked, mode="r|") as tar:
                for member, content in _members(tar, unpacked, max(limits)):
                    file = member.name
                    if member.parent != PurePosixPath(layout.folder) or (
                        file not in layout.batches and file != layout.meta
                    ):
                        continue
                    if file not in missing:
                        raise ValueError(f"{member}: occurs twice in the archive")
                    try:
                        parsed = parse(file, content)
                    except ValueError as error:
                        raise ValueError(f"{member}: {error}") from None
                    missing.remove(file)
                    yield file, parsed
                unpacked.read_end(tar.offset)
        if missing:
            raise ValueError(f"{layout.folder}/{missing[0]} is missing")
    except ValueError as error:
        raise StageError(f"{name}: {error}; {REMEDY}") from None
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise StageError(
            f"{name}: not a complete gzip-compressed tar archive: {error}; {REMEDY}"
        ) from None


def read_batches(
    path: Path, layout: Layout, name: object = None
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield the batches one at a time, in the archive's order, without unpacking to disk.

    Each is (file, images (N, 32, 32, 3) uint8, labels (N,) uint8). Raises `StageError` with file
    and reason if the archive is incomplete or has another layout; `name` is the archive's name in
    the message, if not `path`.
    """

    def parse(file: str, content: bytes) -> tuple[np.ndarray, np.ndarray] | None:
        if file == layout.meta:
            _class_names(content, layout)
            return None
        return _batch(content, layout.batches[file], layout)

    for file, batch in _read(path, layout, parse, name):
        if batch:
            yield file, *batch


def read_class_names(path: Path, layout: Layout) -> list[str]:
    """The class names in the order of their labels; raises `StageError` as `read_batches`."""

    def parse(file: str, content: bytes) -> list[str] | None:
        return _class_names(content, layout) if file == layout.meta else None

    return next(names for _, names in _read(path, layout, parse) if names)


def image_source(path: Path, layout: Layout) -> ImageSource:
    """The images of an archive."""
    *train_counts, test_count = layout.batches.values()
    first_rows = dict(
        zip(layout.batches, itertools.accumulate(train_counts, initial=0), strict=True)
    )
    return ImageSource(
        path=path,
        classes=read_class_names(path, layout),
        image_shape=(32, 32, 3),
        train_count=sum(train_counts),
        test_count=test_count,
        dtype=np.dtype(np.float32),
        batches=(
            (first_rows[file], images, labels)
            for file, images, labels in read_batches(path, layout)
        ),
        provenance=provenance(path, layout),
    )


def provenance(path: Path, layout: Layout) -> dict[str, str]:
    """An archive's SHA-256 and origin: the official server, what its comment says, or unknown."""
    checksum, origin = sha256(path), "unknown"
    if checksum == layout.official_sha256:
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
    path: Path,
    layout: Layout,
    classes: list[str],
    batches: dict[str, tuple[np.ndarray, np.ndarray]],
    comment: str,
) -> None:
    """Write an archive: file → (images (N, 32, 32, 3) uint8, labels (N,)).

    The comment names their origin; it is a pax comment, like the commit in `git archive`. Equal
    arguments give equal bytes.
    """
    class_names = [name.encode() for name in classes]
    members: dict[str, dict[bytes, Any]] = {
        layout.meta: {layout.class_names.encode(): class_names, b"num_vis": 3072}
    }
    for file, (images, labels) in batches.items():
        rows = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), 3072)
        members[file] = {b"data": rows, layout.labels.encode(): [int(label) for label in labels]}
    with (
        path.open("wb") as target,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=target, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", pax_headers={"comment": comment}) as tar,
    ):
        for file, member in members.items():
            content = pickle.dumps(member, protocol=3)
            info = tarfile.TarInfo(f"{layout.folder}/{file}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
