"""What a stage prints: what it reads, and what it wrote."""

import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

STARTED = time.monotonic()  # every stage imports this before what takes seconds
SHOWN = 3  # of many names


def printable(text: str) -> str:
    """Replace control characters, which a terminal would obey, and broken UTF-8 with `?`.

    File names may contain both.
    """
    return "".join(c if c.isprintable() else "?" for c in text)


def counted(count: int, noun: str) -> str:
    """A number of things: "1 step", "1,000 steps"."""
    return f"{count:,} {noun}" + ("s" if count != 1 else "")


def first_few(names: Sequence[object]) -> str:
    """The first names, and how many more there are."""
    others = len(names) - SHOWN
    return ", ".join(map(str, names[:SHOWN])) + (f" and {others:,} more" if others > 0 else "")


def list_suffixes(counts: Mapping[str, int]) -> str:
    """How many files have which suffix, of which the first few."""
    return first_few([f"{n:,} {suffix or 'without a suffix'}" for suffix, n in counts.items()])


def left_out_notice(counts: Mapping[str, int]) -> str:
    """How many files were left out, given their number by suffix; empty if none was."""
    count = sum(counts.values())
    if not count:
        return ""
    are = "are" if count > 1 else "is"
    files = counted(count, "file")
    return f"{files} without an image's suffix {are} left out: {list_suffixes(counts)}"


@contextmanager
def without_stderr(dropped: bytes = b"") -> Iterator[None]:
    """Drop the lines of standard error that match a regular expression, by default all.

    Also those of C libraries, as it captures the file descriptor. Other lines follow at the end.
    """
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            captured.seek(0)
            for line in captured:
                if not re.search(dropped, line):
                    os.write(2, line)


def print_inputs(*inputs: object) -> None:
    """Print what the stage reads."""
    print("reading", ", ".join(map(str, inputs)), flush=True)


def print_outputs(*outputs: object) -> None:
    """Print what the stage has written, and the seconds since it started."""
    seconds = time.monotonic() - STARTED
    print(f"wrote {', '.join(map(str, outputs))} in {seconds:.1f} s", flush=True)
