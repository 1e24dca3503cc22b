"""Files that users name, and files that they put where a stage writes: none of them is lost."""

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from stages.common import paths
from stages.common.atomic import atomic_write
from stages.common.console import print_inputs
from stages.common.errors import StageError
from stages.common.hashing import sha256

MAX_BYTES = 2**30  # the official archives have 170 MB, with weaker compression a little more
EMPTIED_BY_DVC = (
    paths.TRAIN,
    paths.VALIDATION,
    paths.TEST,
    paths.EVALUATIONS,
    paths.MODELS,
    paths.METRICS,
)


def repository() -> Path:
    """The user's repository, which DVC names in DVC_ROOT.

    It is not the working folder of `dvc exp run --temp` and `--queue`, which run in a copy.
    """
    return Path(os.environ.get("DVC_ROOT", ""))


def downloads() -> Path:
    """The folder that keeps downloads for later runs."""
    return repository() / paths.DOWNLOADS


def named_in(variable: str) -> Path | None:
    """The file that an environment variable names; None if it is not set or empty.

    Relative paths are relative to the user's repository. Raises `StageError` for a file in a folder
    that DVC is about to empty.
    """
    value = os.environ.get(variable)
    if not value:
        return None
    path = repository() / value
    for folder in EMPTIED_BY_DVC:
        if path.resolve().is_relative_to(folder.resolve()):
            raise StageError(f"{variable}={value}: DVC empties {folder}; move the file elsewhere")
    return path


def copy(variable: str, source: Path, target: Path) -> None:
    """Copy the file that a variable names; raises `StageError` if it cannot be read.

    Stages check and use the copy, because the file itself may be changing.
    """
    print_inputs(source)
    with target.open("wb") as file:
        file.writelines(_chunks(variable, source))


def _chunks(variable: str, source: Path) -> Iterator[bytes]:
    """The content of a file in parts; raises `StageError` if it cannot be read or is too large."""
    refusal = StageError(f"{variable}={source}: not a regular file of at most {MAX_BYTES} bytes")
    remaining = MAX_BYTES
    try:
        # Before opening, because that alone rewinds a tape; and after it, in case the file is
        # another one by now. A named pipe is opened without waiting for its writer.
        if not stat.S_ISREG(source.stat().st_mode):
            raise refusal
        with os.fdopen(os.open(source, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise refusal
            while chunk := file.read(2**20):
                remaining -= len(chunk)
                if remaining < 0:
                    raise refusal
                yield chunk
    except OSError as error:
        raise StageError(
            f"{variable}={source}: {error.strerror}; name a readable file by its full path"
        ) from None


def keep(path: Path, replacement: Path) -> None:
    """Copy the file at `path` to `downloads()` before `replacement` replaces it.

    Unless DVC has it, it may be a user's only copy. Raises `StageError` if it is no file.
    """
    if not path.exists():
        return
    if not path.is_file():
        raise StageError(f"{path}: not a regular file; move it elsewhere")
    checksum = sha256(path)
    copy = downloads() / f"{checksum[:8]}-{path.name}"
    if checksum != sha256(replacement) and not copy.exists() and not _is_in_cache(path):
        with atomic_write(copy) as partial:
            shutil.copyfile(path, partial)
        print(f"NOTICE: the previous {path} is now {copy}")


def _is_in_cache(path: Path) -> bool:
    """Whether a file is in DVC's cache, where its MD5 is its name."""
    with path.open("rb") as file:
        md5 = hashlib.file_digest(file, "md5").hexdigest()
    return (repository() / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).is_file()
