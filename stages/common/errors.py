"""Errors that a user can cause: one line on standard error, exit status 1."""

import errno
import functools
import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import ParamSpec

from stages.common.console import printable

Arguments = ParamSpec("Arguments")


class StageError(SystemExit):
    """Ends the process with exit status 1 and one line on standard error.

    The message says what was wrong, where, and what to do.
    """

    def __init__(self, message: object) -> None:
        super().__init__("error: " + printable(" ".join(str(message).split())))


def one_line_errors(main: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Decorate a stage's `main`: a failing disk and Ctrl-C end in one line, without a traceback."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        # Exits at once: a KeyboardInterrupt raised inside a TensorFlow callback gets lost.
        os.write(2, b"interrupted: run it again to resume\n")
        os._exit(130)  # 128 + SIGINT, the shell's convention

    @functools.wraps(main)
    def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        signal.signal(signal.SIGINT, interrupt)
        try:
            main(*args, **kwargs)
        except OSError as error:
            remedy = "free some space" if error.errno == errno.ENOSPC else "fix that"
            location = f"{error.filename}: " if error.filename else ""
            raise StageError(
                f"{location}{error.strerror or error}; {remedy} and run it again"
            ) from None

    return guarded
