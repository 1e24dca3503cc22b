"""Atomic writes: an output is complete or absent.

Libraries for this replace single files; the outputs here are folders too.
"""

import csv
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


def remove(path: Path) -> None:
    """Remove a file or a folder with its contents, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary path next to `path` to write to; on success it replaces `path`.

    The output may be a file or a folder. If the block fails, the temporary path is removed and
    `path` stays unchanged. The temporary name keeps `path`'s suffix, which Keras checks, and is
    always the same, so that the next run overwrites what a killed process left behind.
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
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(path)  # write errors carry no file name
        raise


def write_json(path: Path, content: object) -> None:
    """Write `content` as indented JSON, which has no NaN: raises `ValueError` for it."""
    text = json.dumps(content, indent=1, allow_nan=False)
    with atomic_write(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a CSV file."""
    with atomic_write(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
