"""Command lines: every command has a usage text, and whatever ends it is one line."""

import argparse
import errno
from collections.abc import Callable
from typing import NoReturn

from stages.common.errors import StageError


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line, as those of the stages."""

    def error(self, message: str) -> NoReturn:
        raise StageError(f"{message:.300}; see `{self.prog} --help`")


def parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """A parser for the command `python -m MODULE`, described by the module's docstring."""
    return OneLineParser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def run(main: Callable[..., None], command: argparse.ArgumentParser) -> None:
    """Call `main` with the arguments of the command line.

    A failing disk, or too little memory, raises `StageError`.
    """
    try:
        main(**vars(command.parse_args()))
    except OSError as error:
        location = f"{error.filename}: " if error.filename else ""
        remedy = "free some space" if error.errno == errno.ENOSPC else "correct this"
        raise StageError(
            f"{location}{error.strerror or error}; {remedy} and run it again"
        ) from None
    except Exception as error:
        # NumPy's and Python's, and TensorFlow's, which is not imported here.
        if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
            raise StageError(
                "out of memory; free some, or lower batch_size or folder.image_size, then run it "
                "again"
            ) from None
        raise


def run_stage(
    main: Callable[..., None], module: str, description: str | None, *, of_model: bool = False
) -> None:
    """Run a stage's `main`, which has no argument, or the name of a model."""
    command = parser(module, description)
    if of_model:
        command.add_argument("name", metavar="MODEL", help="a key of `models` in params.yaml")
    run(main, command)
