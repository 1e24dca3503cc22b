"""Outputs that appear whole or not at all, written by one process at a time."""

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages import STARTED
from stages.support import paths
from stages.support.errors import StageError


def only_one(stage: str) -> None:
    """Keep every other process out of this stage until this process ends, however it ends.

    DVC's own lock ends with `dvc`; a stage whose `dvc` was killed works on. `StageError` naming the
    process that is at it already.
    """
    paths.STAGE_LOCKS.mkdir(parents=True, exist_ok=True)
    lock = os.open(paths.STAGE_LOCKS / f"{stage}.lock", os.O_RDWR | os.O_CREAT)  # never closed
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        process = os.read(lock, 20).decode()
        raise StageError(
            f"{stage}: process {process} is at it already; wait for it, or end it with "
            f"`kill {process}`, and run `dvc repro` again"
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove(path: Path) -> None:
    """Remove a file or a folder with all it holds; nothing happens where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; it takes `path`'s place once the block has succeeded.

    What is written may be a file or a folder. If the block fails it is removed and `path` stays as
    it was. The name keeps `path`'s ending, which Keras looks at, and is the same each time, so that
    what a killed process left is overwritten by the next one.
    """
    partial = path.with_name(f".partial-{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    remove(partial)
    try:
        yield partial
        if path.is_dir():
            remove(path)
        partial.replace(path)
    except BaseException as error:
        remove(partial)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a write that fails knows no name
        raise


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder beside `path` to work in; it is removed at the end.

    Its name is the same each time, so that what a killed process left is removed by the next one.
    """
    folder = path.with_name(f".partial-{path.name}.scratch")
    remove(folder)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        remove(folder)


def say_reading(*read: object) -> None:
    """Print what a stage reads."""
    print("reading", ", ".join(map(str, read)), flush=True)


def say_wrote(*written: object) -> None:
    """Print what a stage has written, and the seconds since it was started."""
    seconds = time.monotonic() - STARTED
    print(f"wrote {', '.join(map(str, written))} in {seconds:.1f} s", flush=True)


def write_json(path: Path, content: object) -> None:
    """Write `content` as indented JSON."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
