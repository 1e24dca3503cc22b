"""Errors that a user can cause: one line on standard error, exit status 1."""

import errno
import functools
import os
import sys
from collections.abc import Callable
from typing import ParamSpec

from stages.common.console import printable

Arguments = ParamSpec("Arguments")


class StageError(SystemExit):
    """Ends the process with exit status 1 and one line on standard error.

    The message says what was wrong, where, and what to do.
    """

    def __init__(self, message: object) -> None:
        super().__init__("error: " + printable(" ".join(str(message).split())))


def discard_unwritable_output() -> bool:
    """Whether standard output cannot be written: its disk is full, or its reader has ended.

    What was printed is then discarded, because Python would complain about it at exit.
    """
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def one_line_errors(main: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Decorate a stage's `main`: a failing disk ends in one line, without a traceback."""

    @functools.wraps(main)
    def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        try:
            main(*args, **kwargs)
            sys.stdout.flush()
        except OSError as error:
            remedy = "free some space" if error.errno == errno.ENOSPC else "fix that"
            location = "standard output" if discard_unwritable_output() else error.filename
            raise StageError(
                f"{location}: " * bool(location)
                + f"{error.strerror or error}; {remedy} and run it again"
            ) from None

    return guarded
