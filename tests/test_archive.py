"""Hostile and broken archives: each is refused in one line, nothing in it runs or gets out."""

import gzip
import io
import os
import pickle
import pickletools
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.support import archive
from stages.support.errors import StageError

PICTURES = 20
RECONSTRUCT = np._core.multiarray._reconstruct  # type: ignore[attr-defined]


def batch(**changes: Any) -> dict[bytes, Any]:
    content = {"data": np.zeros((PICTURES, 3072), np.uint8), "labels": [0] * PICTURES}
    return {key.encode(): value for key, value in {**content, **changes}.items()}


def write(path: Path, members: dict[str, Any], *more: tarfile.TarInfo) -> Path:
    """An archive of whole batches but for `members` (None leaves one out), then `more`, zeros."""
    with tarfile.open(path, "w:gz") as tar:
        for name, member in ({name: batch() for name in archive.BATCHES} | members).items():
            if member is None:
                continue
            content = member if isinstance(member, bytes) else pickle.dumps(member, 3)
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in more:
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    return path


class Call:
    """Calls a function where it is unpickled, and gives the result a state."""

    def __init__(self, function: Any, *arguments: Any, state: object = None) -> None:
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.parts


def array(
    shape: object = (PICTURES, 3072), code: object = "u1", content: object = bytes(PICTURES * 3072)
) -> Call:
    """`data` as NumPy would pickle it, but for what is given."""
    return Call(
        RECONSTRUCT, np.ndarray, (0,), b"b", state=(1, shape, Call(np.dtype, code), False, content)
    )


BROKEN: dict[str, tuple[Any, str]] = {
    "missing batch": (None, "test_batch is missing"),
    "calls os.system": (Call(os.system, "touch executed"), "which is not allowed"),
    "calls eval": (Call(eval, "open('executed', 'w')"), "calls builtins.eval, which is not"),
    "opens a file": (Call(io.open, "executed", "w"), "which is not allowed"),
    "calls in a label": (batch(labels=[Call(os.mkdir, "executed")] * PICTURES), "not allowed"),
    "calls in data": (batch(data=Call(os.mkdir, "executed")), "which is not allowed"),
    "calls numpy.load": (batch(data=Call(np.load, "executed")), "numpy.load, which is not"),
    "calls bytearray": (batch(data=Call(bytearray, 10**12)), "which is not allowed"),
    "another class": (batch(data=Path("executed")), "which is not allowed"),
    "an endless array": (batch(data=Call(np.ndarray, (10**12,))), "not a readable batch"),
    "a vast shape": (batch(data=array(shape=(10**6, 10**6))), "has shape (1000000, 1000000)"),
    "a negative shape": (batch(data=array(shape=(-20, -3072))), "has shape (-20, -3072)"),
    "too few bytes": (batch(data=array(content=b"")), "has shape (20, 3072)"),
    "objects": (batch(data=array(code="O", content=[1, 2])), "not a whole array"),
    "no type": (batch(data=array(code=None)), "not a uint8 array"),
    "no state": (batch(data=Call(RECONSTRUCT, np.ndarray, (0,), b"b")), "not a whole array"),
    "no pickle": (b"hello", "not a readable batch"),
    "half a pickle": (pickle.dumps(batch(), 3)[:-100], "not a readable batch"),
    "bytes after the pickle": (pickle.dumps(batch(), 3) + b"x", "bytes follow its end"),
    "deep nesting": (b"\x80\x03" + b"(" * 50_000 + b"l" * 50_000 + b".", "not a dictionary"),
    "a persistent id": (b"\x80\x03X\x01\x00\x00\x00aQ.", "not a readable batch"),
    "a vast string": (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.", "not a readable batch"),
    "empty": (b"", "not a readable batch"),
    "a list": ([1, 2], "not a dictionary"),
    "no labels": ({b"data": np.zeros((PICTURES, 3072), np.uint8)}, "not a dictionary with"),
    "no data": ({b"labels": [0] * PICTURES}, "not a dictionary with"),
    "a row less": (batch(data=np.zeros((PICTURES - 1, 3072), np.uint8)), "has shape (19, 3072)"),
    "other size": (batch(data=np.zeros((PICTURES, 784), np.uint8)), "has shape (20, 784)"),
    "float data": (batch(data=np.zeros((PICTURES, 3072), np.float16)), "not a uint8 array"),
    "data a list": (batch(data=[[0] * 3072] * PICTURES), "not a uint8 array"),
    "label 10": (batch(labels=[10] * PICTURES), "whole numbers from 0 to 9"),
    "label -1": (batch(labels=[-1] * PICTURES), "whole numbers from 0 to 9"),
    "label true": (batch(labels=[True] * PICTURES), "whole numbers from 0 to 9"),
    "label text": (batch(labels=["0"] * PICTURES), "whole numbers from 0 to 9"),
    "a label less": (batch(labels=[0] * (PICTURES - 1)), "not a list of 20 numbers"),
    "labels an array": (batch(labels=np.zeros(PICTURES, np.uint8)), "not a list of 20 numbers"),
    "too large": (b"0" * 200_000, "not a regular file of at most"),
}


def assert_refused(path: Path, reason: str) -> None:
    """One line names the archive and the reason; its folder holds the archive alone."""
    with pytest.raises(StageError) as caught:
        list(archive.read_batches(path, PICTURES))
    message = str(caught.value)
    assert message.startswith(f"error: {path}: ")
    assert reason in message
    assert message.isprintable()
    assert list(path.parent.iterdir()) == [path]
    print(message)


@pytest.mark.parametrize(("member", "reason"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_batch_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: Any, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(write(tmp_path / "broken.tar.gz", {"test_batch": member}), reason)


def info(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        member.linkname = "/etc/passwd"
    return member


FOREIGN: dict[str, tuple[list[tarfile.TarInfo], str]] = {
    "symbolic link": ([info("link", tarfile.SYMTYPE)], "link: not a regular file"),
    "hard link": ([info("link", tarfile.LNKTYPE)], "link: not a regular file"),
    "device": ([info("disk", tarfile.BLKTYPE)], "disk: not a regular file"),
    "character device": ([info("null", tarfile.CHRTYPE)], "null: not a regular file"),
    "pipe": ([info("pipe", tarfile.FIFOTYPE)], "pipe: not a regular file"),
    "absolute path": ([info("/tmp/executed")], "/tmp/executed: leads out of"),
    "path upwards": ([info("../executed")], "../executed: leads out of"),
    "path upwards inside": ([info("cifar-10-batches-py/../../executed")], "leads out of"),
    "batch as a link": (
        [info("cifar-10-batches-py/test_batch", tarfile.SYMTYPE)],
        "test_batch: not a regular file",
    ),
    "double batch": ([info("cifar-10-batches-py/test_batch")], "stands twice in the archive"),
    "large stranger": ([info("film", size=10**6)], "film: not a regular file of at most"),
    "many strangers": ([info(f"file{n}") for n in range(200)], "more than 100 members"),
    "control characters": ([info("a\x1b]0;b\n\x07", tarfile.SYMTYPE)], "not a regular file"),
}


@pytest.mark.parametrize(("members", "reason"), FOREIGN.values(), ids=FOREIGN.keys())
def test_a_foreign_member_is_refused(
    tmp_path: Path, members: list[tarfile.TarInfo], reason: str
) -> None:
    assert_refused(write(tmp_path / "foreign.tar.gz", {}, *members), reason)


def zeros(count: int) -> bytes:
    """That many bytes of zeros, compressed: a gigabyte comes to a megabyte, so it is repeated."""
    return gzip.compress(bytes(10**8), 1) * (count // 10**8)


def header_only(size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    return info("big", kind, size).tobuf(tarfile.GNU_FORMAT)


WHOLE_FILES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated": (lambda whole: whole[: len(whole) // 2], "not a whole gzip"),
    "last byte missing": (lambda whole: whole[:-1], "not a whole gzip"),
    "wrong checksum": (lambda whole: whole[:-8] + b"wrong" + whole[-3:], "not a whole gzip"),
    "a flipped bit": (
        lambda whole: whole[:200] + bytes([whole[200] ^ 16]) + whole[201:],
        ": ",
    ),
    "empty": (lambda _: b"", "not a whole gzip"),
    "text": (lambda _: b"<html>not found</html>", "not a whole gzip"),
    "packed text": (lambda _: gzip.compress(b"hello" * 1000), "not a whole gzip"),
    "packed nothing": (lambda _: gzip.compress(b""), "not a whole gzip"),
    "tar without gzip": (lambda whole: gzip.decompress(whole), "not a whole gzip"),
    "trailing bytes": (lambda whole: whole + b"x" * 100, "not a whole gzip"),
    "trailing bytes inside": (
        lambda whole: gzip.compress(gzip.decompress(whole) + b"x"),
        "bytes follow the end of the archive",
    ),
    "a second archive behind it": (lambda whole: whole + whole, "bytes follow the end"),
    "a damaged header": (
        lambda whole: gzip.compress(gzip.decompress(whole).replace(b"py/test_b", b"py/tast_b")),
        "damaged",
    ),
    "10 GB of zeros": (lambda _: zeros(10**10), "unpacks to more than"),
    "10 GB of zeros behind it": (lambda whole: whole + zeros(10**10), "unpacks to more than"),
    "a file of 10 GB": (lambda _: gzip.compress(header_only(10**10)), "big: not a regular file"),
    "a header of 10 GB": (
        lambda _: gzip.compress(header_only(10**10, tarfile.XHDTYPE)) + zeros(10**10),
        "unpacks to more than",
    ),
    "a name of 10 GB": (
        lambda _: gzip.compress(header_only(10**10, tarfile.GNUTYPE_LONGNAME)) + zeros(10**10),
        "unpacks to more than",
    ),
}


@pytest.mark.parametrize(("change", "reason"), WHOLE_FILES.values(), ids=WHOLE_FILES.keys())
def test_a_broken_archive_is_refused(
    tmp_path: Path, change: Callable[[bytes], bytes], reason: str
) -> None:
    path = write(tmp_path / "archive.tar.gz", {})
    path.write_bytes(change(path.read_bytes()))
    tracemalloc.start()
    assert_refused(path, reason)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6  # however much it unpacks to


def test_a_zip_in_its_place_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "renamed.tar.gz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("cifar-10-batches-py/test_batch", b"")
    assert_refused(path, "not a whole gzip-compressed tar archive")


def as_python_2(content: bytes) -> bytes:
    """A pickle of protocol 3 as Python 2 would have written it: bytes are its only strings."""
    rewritten = bytearray(content.replace(b"X\x02\x00\x00\x00u1", b"U\x02u1"))
    codes = {"PROTO": b"\x80\x02", "SHORT_BINBYTES": b"U", "BINBYTES": b"T"}
    for opcode, _, position in pickletools.genops(bytes(rewritten)):
        if position is not None and (code := codes.get(opcode.name)):
            rewritten[position : position + len(code)] = code
    return bytes(rewritten)


@pytest.mark.parametrize("dialect", ["Python 2", "protocol 3", "protocol 4"])
def test_a_whole_archive_is_read_in_every_dialect(tmp_path: Path, dialect: str) -> None:
    # The official one was pickled by Python 2. NumPy may have stored columns first, batches may
    # come in any order, and some tools begin names with "./" and add the folder as a member.
    data = np.random.default_rng(0).integers(0, 256, (PICTURES, 3072), np.uint8)
    content = batch(data=np.asfortranarray(data), labels=list(range(10)) * 2)
    packed = pickle.dumps(content, 4 if dialect == "protocol 4" else 3)
    packed = as_python_2(packed) if dialect == "Python 2" else packed
    path = tmp_path / "whole.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(info("./cifar-10-batches-py", tarfile.DIRTYPE))
        for name in reversed(archive.BATCHES):
            member = info(f"./cifar-10-batches-py/{name}", size=len(packed))
            tar.addfile(member, io.BytesIO(packed))
    batches = list(archive.read_batches(path, PICTURES))
    assert [name for name, _, _ in batches] == archive.BATCHES[::-1]
    for _, images, labels in batches:
        assert (images == data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)).all()
        assert labels.tolist() == list(range(10)) * 2
