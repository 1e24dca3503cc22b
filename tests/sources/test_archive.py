"""Archives: what is read from valid ones, and how malicious and damaged ones are refused."""

import functools
import gzip
import io
import os
import pickle
import pickletools
import tarfile
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.common.errors import StageError
from stages.common.hashing import sha256
from stages.sources import archive, plain_pickle

IMAGES = 20
LAYOUT = replace(archive.CIFAR10, batches=dict.fromkeys(archive.CIFAR10.batches, IMAGES))
META = {b"label_names": [name.encode() for name in archive.CLASSES]}
HUGE_HEADER = "the header of a member unpacks to more than 65536 bytes"
RECONSTRUCT = np._core.multiarray._reconstruct  # type: ignore[attr-defined]


def batch(**changes: Any) -> dict[bytes, Any]:
    """A valid batch, except for these changes."""
    content = {"data": np.zeros((IMAGES, 3072), np.uint8), "labels": [0] * IMAGES}
    return {key.encode(): value for key, value in {**content, **changes}.items()}


def info(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0) -> tarfile.TarInfo:
    """The header of a member; links point to /etc/passwd."""
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        member.linkname = "/etc/passwd"
    return member


def link_to(target: str) -> tarfile.TarInfo:
    """The header of a symbolic link."""
    member = info("x", tarfile.SYMTYPE)
    member.linkname = target
    return member


def write(path: Path, members: dict[str, Any], *more: tarfile.TarInfo) -> Path:
    """Write an archive of valid files, except for `members`, then `more`, filled with zeros.

    None as a file's content omits it.
    """
    with tarfile.open(path, "w:gz") as tar:
        valid = {LAYOUT.meta: META} | {name: batch() for name in LAYOUT.batches}
        for name, member in (valid | members).items():
            if member is None:
                continue
            content = member if isinstance(member, bytes) else pickle.dumps(member, 3)
            header = info(f"cifar-10-batches-py/{name}", size=len(content))
            tar.addfile(header, io.BytesIO(content))
        for header in more:
            tar.addfile(header, io.BytesIO(bytes(header.size)))
    return path


class Call:
    """Unpickling this calls a function, and sets the state of what it returns."""

    def __init__(self, function: Any, *arguments: Any, state: object = None) -> None:
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.parts


def array(
    shape: object = (IMAGES, 3072), code: object = "u1", content: object = bytes(IMAGES * 3072)
) -> Call:
    """A valid array as NumPy pickles it, except for these arguments."""
    return Call(
        RECONSTRUCT, np.ndarray, (0,), b"b", state=(1, shape, Call(np.dtype, code), False, content)
    )


INVALID_BATCHES: dict[str, tuple[Any, str]] = {
    "missing batch": (None, "test_batch is missing"),
    "calls os.system": (Call(os.system, "touch executed"), "which is not allowed"),
    "calls eval": (Call(eval, "open('executed', 'w')"), "calls builtins.eval, which is not"),
    "opens a file": (Call(io.open, "executed", "w"), "which is not allowed"),
    "calls in a label": (batch(labels=[Call(os.mkdir, "executed")] * IMAGES), "not allowed"),
    "calls in data": (batch(data=Call(os.mkdir, "executed")), "which is not allowed"),
    "calls numpy.load": (batch(data=Call(np.load, "executed")), "numpy.load, which is not"),
    "calls bytearray": (batch(data=Call(bytearray, 10**12)), "which is not allowed"),
    "instance of another class": (batch(data=Path("executed")), "which is not allowed"),
    "huge empty array": (batch(data=Call(np.ndarray, (10**12,))), "not a readable pickle"),
    "huge shape": (batch(data=array(shape=(10**6, 10**6))), "has shape (1000000, 1000000)"),
    "negative shape": (batch(data=array(shape=(-20, -3072))), "has shape (-20, -3072)"),
    "too few bytes": (batch(data=array(content=b"")), "has shape (20, 3072)"),
    "array of objects": (batch(data=array(code="O", content=[1, 2])), "not a complete array"),
    "array without type": (batch(data=array(code=None)), "not a uint8 array"),
    "array without state": (
        batch(data=Call(RECONSTRUCT, np.ndarray, (0,), b"b")),
        "not a complete array",
    ),
    "not a pickle": (b"hello", "not a readable pickle"),
    "truncated pickle": (pickle.dumps(batch(), 3)[:-100], "not a readable pickle"),
    "bytes after the pickle": (pickle.dumps(batch(), 3) + b"x", "there are bytes after its end"),
    "deep nesting": (b"\x80\x03" + b"(" * 50_000 + b"l" * 50_000 + b".", "not a readable pickle"),
    "persistent ID": (b"\x80\x03X\x01\x00\x00\x00aQ.", "not a readable pickle"),
    "huge string": (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.", "not a readable pickle"),
    "empty": (b"", "not a readable pickle"),
    "unknown opcode": (b"\x80\x03\xff.", "it contains b'\\xff', which batches do not need"),
    "nothing on the stack": (b"\x80\x03.", "not a readable pickle: it is damaged"),
    "missing in the memo": (b"\x80\x03h\x07.", "not a readable pickle: it is damaged"),
    "item without a list": (b"\x80\x03K\x01K\x02a.", "not a readable pickle: it changes a value"),
    "key without an item": (b"\x80\x03}(C\x01au.", "not a readable pickle"),
    "call without arguments": (b"\x80\x03cnumpy\ndtype\n)R.", "it makes a call that is not"),
    "Python 3, protocol 2": (pickle.dumps(batch(), 2), "protocol 2; use protocol 3, 4 or 5"),
    "list instead of dictionary": ([1, 2], "not a dictionary"),
    "no labels": ({b"data": np.zeros((IMAGES, 3072), np.uint8)}, "not a dictionary with"),
    "no data": ({b"labels": [0] * IMAGES}, "not a dictionary with"),
    "row missing": (batch(data=np.zeros((IMAGES - 1, 3072), np.uint8)), "has shape (19, 3072)"),
    "28 x 28 pixels": (batch(data=np.zeros((IMAGES, 784), np.uint8)), "has shape (20, 784)"),
    "float data": (batch(data=np.zeros((IMAGES, 3072), np.float16)), "not a uint8 array"),
    "lists instead of array": (batch(data=[[0] * 3072] * IMAGES), "more than 1160 opcodes, which"),
    "label 10": (batch(labels=[10] * IMAGES), "integers from 0 to 9"),
    "label -1": (batch(labels=[-1] * IMAGES), "integers from 0 to 9"),
    "boolean label": (batch(labels=[True] * IMAGES), "integers from 0 to 9"),
    "text as label": (batch(labels=["0"] * IMAGES), "integers from 0 to 9"),
    "label missing": (batch(labels=[0] * (IMAGES - 1)), "not a list of 20 numbers"),
    "array of labels": (batch(labels=np.zeros(IMAGES, np.uint8)), "not a list of 20 numbers"),
    "too large": (b"0" * 200_000, "not a regular file of at most"),
}


def names(*first: object) -> dict[bytes, object]:
    """Ten class names, of which these are the first."""
    return {b"label_names": [*first, *META[b"label_names"][len(first) :]]}


INVALID_CLASS_NAMES: dict[str, tuple[Any, str]] = {
    "no file": (None, "cifar-10-batches-py/batches.meta is missing"),
    "not a pickle": (b"hello", "batches.meta: not a readable pickle"),
    "call": (Call(os.mkdir, "executed"), "which is not allowed"),
    "bomb": (b"\x80\x02}" + b")" + b"q\x01h\x01\x86" * 60 + b"K\x00s.", "not a readable pickle"),
    "too large": (pickle.dumps(names(b"x" * 70_000), 3), "larger than 65536 bytes"),
    "list": ([b"cat", b"dog"], "not a dictionary with `label_names`"),
    "of CIFAR-100": ({b"fine_label_names": []}, "not a dictionary with `label_names`"),
    "no list": ({b"label_names": b"0123456789"}, "not a list of 10 names"),
    "nine": ({b"label_names": META[b"label_names"][1:]}, "not a list of 10 names"),
    "eleven": ({b"label_names": [*META[b"label_names"], b"x"]}, "not a list of 10 names"),
    "number": (names(1), "1 is not a class name of printable characters"),
    "nothing": (names(None), "None is not a class name"),
    "not UTF-8": (names(b"\xff"), "is not a class name of printable characters"),
    "line break": (names(b"a\nb"), "is not a class name of printable characters"),
    "control code": (names("\x1b[31m"), "is not a class name of printable characters"),
    "surrounding space": (names(" cat"), "is not a class name of printable characters"),
    "empty": (names(b""), "distinct, with 1 to 255 characters"),
    "long": (names("x" * 256), "distinct, with 1 to 255 characters"),
    "twice": (names(b"cat"), "'cat': class names are distinct"),
    "twice, in two types": (names("cat"), "'cat': class names are distinct"),
}


@pytest.mark.parametrize(
    ("meta", "reason"), INVALID_CLASS_NAMES.values(), ids=INVALID_CLASS_NAMES.keys()
)
def test_invalid_class_names_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meta: Any, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "archive.tar.gz", {"batches.meta": meta})
    assert_refused(path, reason)
    with pytest.raises(StageError) as caught:
        archive.read_class_names(path, LAYOUT)
    assert reason in str(caught.value)


def test_class_names_of_an_archive_may_be_any_text(tmp_path: Path) -> None:
    path = write(tmp_path / "archive.tar.gz", {"batches.meta": names("Gänse", "日本".encode())})
    expected = ["Gänse", "日本", *archive.CLASSES[2:]]
    assert archive.read_class_names(path, LAYOUT) == expected
    assert archive.image_source(path, LAYOUT).classes == expected


def test_archive_of_cifar100_has_its_own_layout(tmp_path: Path) -> None:
    layout = replace(archive.CIFAR100, batches={"train": 150, "test": 100})
    random = np.random.default_rng(0)
    batches = {
        file: (random.integers(0, 256, (count, 32, 32, 3), np.uint8), np.arange(count) % 100)
        for file, count in layout.batches.items()
    }
    classes = [f"class {number}" for number in range(100)]
    path = tmp_path / "archive.tar.gz"
    archive.write_batches(path, layout, classes, batches, "random")
    source = archive.image_source(path, layout)
    assert (source.train_count, source.test_count, source.classes) == (150, 100, classes)
    read = {first: (images, labels) for first, images, labels in source.batches}
    for first, file in {0: "train", 150: "test"}.items():
        assert np.array_equal(read[first][0], batches[file][0])
        assert np.array_equal(read[first][1], batches[file][1])
    with pytest.raises(StageError, match="cifar-10-batches-py/data_batch_1 is missing"):
        list(archive.read_batches(path, archive.CIFAR10))


def doubled(times: int) -> bytes:
    """The opcodes of a tuple that contains itself twice, that one twice, and so on."""
    return b")" + b"".join(b"q%ch%c\x86" % (n, n) for n in range(times))


def array_opcodes(shape: bytes) -> bytes:
    """A batch whose array has the shape that these opcodes build."""
    new = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    state = b"(K\x01" + shape + b"cnumpy\ndtype\nU\x02u1\x85R\x89U\x00tb"
    return b"}(U\x04data" + new + state + b"U\x06labels]u"


# `pickle.load`, or the check of what it returned, took hours or gigabytes for each.
PICKLE_BOMBS = {
    "tuple as a key": b"}" + doubled(60) + b"K\x00s",
    "tuple as a module": doubled(60) + b"\x8c\x01a\x93",
    "tuple as a type": array_opcodes(b"K\x01\x85").replace(b"U\x02u1", doubled(60)),
    "tuple as a label": array_opcodes(b"K\x01\x85").replace(b"]u", b"](" + doubled(60) + b"eu"),
    "tuple as a shape": array_opcodes(doubled(60)),
    "deep tuple as a shape": array_opcodes(b")" + b"\x85" * 1000),
    "deep list as a shape": array_opcodes(b"]" * 500 + b"a" * 499),
    "huge index of the memo": b"]r\xff\xff\xff\x7f",
    "many indices of the memo": b"]" + b"".join(b"r%b\x7f" % bytes([n] * 3) for n in range(256)),
    "huge integer": b"\x8b\xff\xff\xff\x7f",
    "huge decimal integer": b"L" + b"9" * 50_000 + b"L\n",
    "huge frame": b"\x95" + b"\xff" * 8,
    "huge text": b"\x8d" + b"\xff" * 7 + b"\x7f",
    "integers of one hash as keys": b"}("
    + b"".join(b"\x8a\x0a%bN" % (n * (2**61 - 1)).to_bytes(10, "little") for n in range(9000))
    + b"u",
    "small integers as keys": b"}(" + b"".join(b"K%cN" % n for n in range(256)) + b"u",
    "nested lists": b"]" * 140_000,
    "nested tuples": b")" + b"\x85" * 140_000,
    "nested dictionaries": b"}" * 140_000,
    "marks": b"(" * 140_000,
    "duplicates": b"]" + b"2" * 140_000,
    "list in itself": b"]q\x00h\x00a",
    "dictionary in itself": b"}q\x00U\x04datah\x00sU\x06labels]s",
    "endless line": b"c" + b"a" * 140_000,
    "name of a huge module": b"c" + b"a" * 140_000 + b"\nb\n",
}


@contextmanager
def limits() -> Iterator[None]:
    """The block must take less than a second of processor time and 20 MB."""
    tracemalloc.start()
    started = time.process_time()
    try:
        yield
        assert time.process_time() - started < 1
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def assert_refused(path: Path, reason: str) -> None:
    """Reading fails with one line that names archive and reason, and writes no file."""
    with pytest.raises(StageError) as caught:
        list(archive.read_batches(path, LAYOUT))
    message = str(caught.value)
    assert message.startswith(f"error: {path}: ")
    assert reason in message
    assert message.isprintable()
    assert list(path.parent.iterdir()) == [path]
    print(message)


@pytest.mark.parametrize(("member", "reason"), INVALID_BATCHES.values(), ids=INVALID_BATCHES.keys())
def test_invalid_batch_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: Any, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(write(tmp_path / "archive.tar.gz", {"test_batch": member}), reason)


@pytest.mark.parametrize("opcodes", PICKLE_BOMBS.values(), ids=PICKLE_BOMBS.keys())
def test_pickle_bomb_is_refused_within_a_second_and_20_mb(tmp_path: Path, opcodes: bytes) -> None:
    path = write(tmp_path / "archive.tar.gz", {"test_batch": b"\x80\x02" + opcodes + b"."})
    with limits():
        assert_refused(path, "cifar-10-batches-py/test_batch: ")


def test_mutated_pickle_is_read_or_refused() -> None:
    random = np.random.default_rng(0)
    outcomes = set()
    for protocol in (3, 4, 5):
        valid = pickle.dumps(batch(data=np.zeros((1, 10), np.uint8), labels=[1, 2]), protocol)
        for _ in range(1000):
            content = bytearray(valid)
            for position in random.integers(0, len(valid), random.integers(1, 4)):
                content[position] = random.integers(256)
            try:
                plain_pickle.load(bytes(content), 1000)
                outcomes.add("read")
            except ValueError:
                outcomes.add("refused")
    assert outcomes == {"read", "refused"}


INVALID_MEMBERS: dict[str, tuple[list[tarfile.TarInfo], str]] = {
    "symbolic link": ([info("link", tarfile.SYMTYPE)], "link: not a regular file"),
    "hard link": ([info("link", tarfile.LNKTYPE)], "link: not a regular file"),
    "block device": ([info("disk", tarfile.BLKTYPE)], "disk: not a regular file"),
    "character device": ([info("null", tarfile.CHRTYPE)], "null: not a regular file"),
    "named pipe": ([info("pipe", tarfile.FIFOTYPE)], "pipe: not a regular file"),
    "absolute path": ([info("/tmp/executed")], "/tmp/executed: points outside"),
    "path with ..": ([info("../executed")], "../executed: points outside"),
    "path with .. below the folder": (
        [info("cifar-10-batches-py/../../executed")],
        "points outside",
    ),
    "link instead of batch": (
        [info("cifar-10-batches-py/test_batch", tarfile.SYMTYPE)],
        "test_batch: not a regular file",
    ),
    "duplicate batch": ([info("cifar-10-batches-py/test_batch")], "occurs twice in the archive"),
    "large additional member": (
        [info("video", size=10**6)],
        "video: not a regular file of at most",
    ),
    "many additional members": ([info(f"file{n}") for n in range(200)], "more than 100 members"),
    "many folders": ([info(f"x{n}", tarfile.DIRTYPE) for n in range(200)], "more than 100 members"),
    "long name": ([info("x" * 60_000, tarfile.SYMTYPE)], "x" * 100 + ": not a regular file"),
    "name of 10 MB": ([info("x" * 10**7, tarfile.SYMTYPE)], HUGE_HEADER),
    "link to a name of 10 MB": ([link_to("x" * 10**7)], HUGE_HEADER),
    "control characters": ([info("a\x1b]0;b\n\x07", tarfile.SYMTYPE)], "not a regular file"),
}


@pytest.mark.parametrize(
    ("members", "reason"), INVALID_MEMBERS.values(), ids=INVALID_MEMBERS.keys()
)
def test_invalid_member_is_refused(
    tmp_path: Path, members: list[tarfile.TarInfo], reason: str
) -> None:
    assert_refused(write(tmp_path / "archive.tar.gz", {}, *members), reason)


def member(kind: bytes, content: bytes) -> bytes:
    """A header and its content, as tar pads them."""
    header = info("x", kind, len(content)).tobuf(tarfile.GNU_FORMAT)
    return header + content + bytes(-len(content) % tarfile.BLOCKSIZE)


def pax(key: str, value: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    """A pax header with one record."""
    record = b" %b=%b\n" % (key.encode(), value)
    length = len(record) + len(str(len(record)))
    length += len(str(length)) - len(str(len(record)))
    return member(kind, b"%d%b" % (length, record))


def sparse_file(kind: bytes, is_extended: bytes) -> bytes:
    """The header of an old GNU sparse file, which may say that another one follows."""
    header = bytearray(info("x", kind, 512).tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"00000001000\0" * 2  # a part that is not where the file begins
    header[482:483] = is_extended
    header[483:495] = b"00000001000\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@functools.cache
def deflated_zeros(count: int) -> bytes:
    """The part of a deflate stream that adds so many zeros; 100 MB are compressed once."""
    return deflated(bytes(10**8)) * (count // 10**8)


def deflated(content: bytes) -> bytes:
    """The part of a deflate stream that adds `content`."""
    compressor = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    return compressor.compress(content) + compressor.flush(zlib.Z_FULL_FLUSH)


def followed_by_zeros(content: bytes, count: int) -> bytes:
    """The beginning of a gzip stream of `content` and so many zeros."""
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + deflated(content) + deflated_zeros(count)


def header_only(size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A member's header without the member's content."""
    return info("big", kind, size).tobuf(tarfile.GNU_FORMAT)


DAMAGED_ARCHIVES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated": (lambda valid: valid[: len(valid) // 2], "not a complete gzip"),
    "last byte missing": (lambda valid: valid[:-1], "not a complete gzip"),
    "wrong checksum": (lambda valid: valid[:-8] + b"wrong" + valid[-3:], "not a complete gzip"),
    "flipped bit": (
        lambda valid: valid[:200] + bytes([valid[200] ^ 16]) + valid[201:],
        "",  # for whatever reason
    ),
    "empty": (lambda _: b"", "not a complete gzip"),
    "text": (lambda _: b"<html>not found</html>", "not a complete gzip"),
    "compressed text": (lambda _: gzip.compress(b"hello" * 1000), "not a complete gzip"),
    "compressed empty file": (lambda _: gzip.compress(b""), "not a complete gzip"),
    "tar without gzip": (gzip.decompress, "not a complete gzip"),
    "trailing bytes": (lambda valid: valid + b"x" * 100, "there are bytes after the end"),
    "trailing bytes in the tar archive": (
        lambda valid: gzip.compress(gzip.decompress(valid) + b"x"),
        "there are bytes after the end of the archive",
    ),
    "two archives in one file": (lambda valid: valid + valid, "there are bytes after the end"),
    "damaged header": (
        lambda valid: gzip.compress(gzip.decompress(valid).replace(b"py/test_b", b"py/tast_b")),
        "damaged",
    ),
    "10 GB of zeros": (lambda _: followed_by_zeros(b"", 10**10), "unpacks to more than"),
    "10 GB of zeros after the archive": (
        lambda valid: followed_by_zeros(gzip.decompress(valid), 10**10),
        "unpacks to more than",
    ),
    "file of 10 GB": (lambda _: gzip.compress(header_only(10**10)), "big: not a regular file"),
    "header of 10 GB": (
        lambda _: followed_by_zeros(header_only(10**10, tarfile.XHDTYPE), 10**10),
        HUGE_HEADER,
    ),
    "1,500 headers with names": (
        lambda _: gzip.compress(member(tarfile.GNUTYPE_LONGNAME, b"x") * 1500),
        HUGE_HEADER,
    ),
    "1,500 empty headers": (
        lambda _: gzip.compress(member(tarfile.GNUTYPE_LONGNAME, b"") * 1500),
        HUGE_HEADER,
    ),
    "1,500 pax headers": (lambda _: gzip.compress(pax("path", b"x") * 1500), HUGE_HEADER),
    "1,500 global pax headers": (
        lambda _: gzip.compress(pax("x", b"1", tarfile.XGLTYPE) * 1500),
        HUGE_HEADER,
    ),
    "pax header of 200 MB": (
        lambda _: followed_by_zeros(header_only(2 * 10**8, tarfile.XHDTYPE), 2 * 10**8),
        HUGE_HEADER,
    ),
    "400,000 folders": (
        lambda _: gzip.compress(member(tarfile.DIRTYPE, b"") * 400_000, 1),
        "more than 100 members",
    ),
    "sparse file": (lambda _: gzip.compress(sparse_file(b"S", b"\0")), "x: not a regular file"),
    "endless map of a sparse file": (
        lambda _: gzip.compress(sparse_file(b"S", b"\1") + (b"0" * 504 + b"\1" * 8) * 100_000),
        HUGE_HEADER,
    ),
    "sparse file in pax format": (
        lambda _: gzip.compress(pax("GNU.sparse.map", b"9,1") + member(tarfile.REGTYPE, b"x" * 20)),
        "x: not a regular file",
    ),
    "negative size": (
        lambda _: gzip.compress(pax("size", b"-9999") + member(tarfile.REGTYPE, b"x")),
        "",  # for whatever reason
    ),
    "long file name in gzip's header": (
        lambda _: b"\x1f\x8b\x08\x08\0\0\0\0\0\xff" + b"x" * 10**7,
        "not a complete gzip",
    ),
    "empty gzip streams": (lambda _: gzip.compress(b"") * 500_000, "not a complete gzip"),
    "file name of 10 GB": (
        lambda _: followed_by_zeros(header_only(10**10, tarfile.GNUTYPE_LONGNAME), 10**10),
        HUGE_HEADER,
    ),
}


@pytest.mark.parametrize(
    ("change", "reason"), DAMAGED_ARCHIVES.values(), ids=DAMAGED_ARCHIVES.keys()
)
def test_damaged_archive_is_refused_within_a_second_and_20_mb(
    tmp_path: Path, change: Callable[[bytes], bytes], reason: str
) -> None:
    path = write(tmp_path / "archive.tar.gz", {})
    path.write_bytes(change(path.read_bytes()))
    with limits():  # whatever it unpacks to
        assert_refused(path, reason)


def test_zip_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "archive.tar.gz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("cifar-10-batches-py/test_batch", b"")
    assert_refused(path, "not a complete gzip-compressed tar archive")


def as_python_2(content: bytes) -> bytes:
    """A pickle of protocol 3 as Python 2 would have written it: all its strings are bytes."""
    rewritten = bytearray(content.replace(b"X\x02\x00\x00\x00u1", b"U\x02u1"))
    codes = {"PROTO": b"\x80\x02", "SHORT_BINBYTES": b"U", "BINBYTES": b"T"}
    for opcode, _, position in pickletools.genops(bytes(rewritten)):
        if position is not None and (code := codes.get(opcode.name)):
            rewritten[position : position + len(code)] = code
    return bytes(rewritten)


@pytest.mark.parametrize("written_by", ["Python 2", *(f"protocol {n}" for n in (3, 4, 5))])
def test_valid_archive_is_read_whatever_wrote_it(tmp_path: Path, written_by: str) -> None:
    # Python 2 pickled the official archive. Arrays may be stored column by column, batches may be
    # in any order, and some tools start names with "./" and add the folder as a member.
    data = np.random.default_rng(0).integers(0, 256, (IMAGES, 3072), np.uint8)
    contents = [batch(data=np.asfortranarray(data), labels=list(range(10)) * 2), META]
    protocol = 3 if written_by == "Python 2" else int(written_by[-1])
    pickled, pickled_meta = (pickle.dumps(content, protocol) for content in contents)
    if written_by == "Python 2":
        pickled, pickled_meta = as_python_2(pickled), as_python_2(pickled_meta)
    path = tmp_path / "archive.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(info("./cifar-10-batches-py", tarfile.DIRTYPE))
        for name in (*reversed(LAYOUT.batches), LAYOUT.meta):
            content = pickled_meta if name == LAYOUT.meta else pickled
            header = info(f"./cifar-10-batches-py/{name}", size=len(content))
            tar.addfile(header, io.BytesIO(content))
    batches = list(archive.read_batches(path, LAYOUT))
    assert [name for name, _, _ in batches] == list(reversed(LAYOUT.batches))
    assert archive.read_class_names(path, LAYOUT) == archive.CLASSES
    for _, images, labels in batches:
        assert (images == data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)).all()
        assert labels.tolist() == list(range(10)) * 2


def test_provenance_names_origin_and_checksum(tmp_path: Path) -> None:
    generated = tmp_path / "generated.tar.gz"
    black = np.zeros((IMAGES, 32, 32, 3), np.uint8), np.zeros(IMAGES, np.uint8)
    batches = dict.fromkeys(LAYOUT.batches, black)
    archive.write_batches(generated, LAYOUT, archive.CLASSES, batches, "black images")
    checksum = sha256(generated)
    expected = {"archive": "black images", "archive_sha256": checksum}
    assert archive.provenance(generated, LAYOUT) == expected
    without_comment = write(tmp_path / "archive.tar.gz", {})
    assert archive.provenance(without_comment, LAYOUT)["archive"] == "unknown"
    official = replace(LAYOUT, official_sha256=checksum)
    assert archive.provenance(generated, official)["archive"] == "official archive"
