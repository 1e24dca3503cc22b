"""Errors that a user can cause: one line on standard error, exit status 1."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.common.console import printable


class StageError(SystemExit):
    """Ends the process with exit status 1 and one line on standard error.

    The message says what was wrong, where, and what to do.
    """

    def __init__(self, message: object) -> None:
        super().__init__("error: " + printable(" ".join(str(message).split())))


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong while `path`, a stage's output, is read into a `StageError`."""
    try:
        yield
    except FileNotFoundError:
        raise StageError(f"{path}: missing; run `dvc repro`") from None
    except Exception as error:  # NumPy, HDF5, zip, JSON and pydantic raise many types
        reason = getattr(error, "strerror", None) or str(error)
        raise StageError(
            f"{path}: damaged: {reason:.200}; run `dvc repro`, which restores it"
        ) from None
