"""Command lines: every command has a usage text, and refuses what it does not know in one line."""

import argparse
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


def no_arguments(module: str, description: str | None) -> None:
    """Parse the command line of a command without arguments."""
    parser(module, description).parse_args()


def model_name(module: str, description: str | None) -> str:
    """Parse the command line of a command for one model; returns the model's name."""
    model_parser = parser(module, description)
    model_parser.add_argument("model", metavar="MODEL", help="a key of `models` in params.yaml")
    name: str = model_parser.parse_args().model
    return name
