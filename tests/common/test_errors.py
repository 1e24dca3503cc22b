"""Errors are one line on standard error, whatever the text and wherever it occurs."""

import sys
from pathlib import Path

import pytest

from stages.common.errors import StageError, reading
from tests.repository import ROOT, Repository

PRINTS = """
from stages.common import command_line

def main():
    print("x" * 100_000, flush=True)

command_line.run_stage(main, "prints", None)
"""


def test_unwritable_standard_output_ends_in_one_line() -> None:
    for target, reason in (
        (">/dev/full", "No space left on device; free some space"),
        ("| true", "Broken pipe; correct this"),
    ):
        command = ("bash", "-c", f'set -o pipefail; "$0" -c "$1" {target}', sys.executable, PRINTS)
        result = Repository(ROOT).run(*command)
        assert result.returncode == 1
        assert result.stderr == f"error: {reason} and run it again\n"


def test_damaged_output_is_named_in_one_printable_line() -> None:
    with pytest.raises(StageError) as caught, reading(Path("data/a\x1b[2J.npy")):
        raise ValueError("first line\nsecond\x9b line")
    assert str(caught.value) == (
        "error: data/a?[2J.npy: damaged: first line second? line; "
        "run `dvc repro`, which restores it"
    )
