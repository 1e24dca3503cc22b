"""The one way a stage ends when something the user can change is wrong."""

import errno
import functools
import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import ParamSpec

Arguments = ParamSpec("Arguments")


def printable(text: str) -> str:
    """The text without control characters, which a terminal would obey, and broken UTF-8.

    A file's name, in an archive too, may hold them.
    """
    return "".join(c if c.isprintable() else "?" for c in text)


class StageError(SystemExit):
    """Ends the process with exit status 1 and its message, one line, on standard error.

    The message says what was wrong, where, and what to do.
    """

    def __init__(self, message: object) -> None:
        super().__init__("error: " + printable(" ".join(str(message).split())))


def one_line_errors(main: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Decorate a stage's `main`: a failing disk and Ctrl-C end in one line, without a traceback."""

    def leave(_signal: int, _frame: FrameType | None) -> None:
        # At once: a KeyboardInterrupt raised inside one of TensorFlow's callbacks is lost.
        os.write(2, b"interrupted: run it again, and it goes on where it can\n")
        os._exit(130)  # 128 + SIGINT, as shells count

    @functools.wraps(main)
    def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        signal.signal(signal.SIGINT, leave)
        try:
            main(*args, **kwargs)
        except OSError as error:
            remedy = "free some space" if error.errno == errno.ENOSPC else "correct that"
            where = f"{error.filename}: " if error.filename else ""
            raise StageError(
                f"{where}{error.strerror or error}; {remedy} and run it again"
            ) from None

    return guarded
