"""Standard output that cannot be written ends a stage in one line."""

import sys

import pytest

from tests.repository import ROOT, Repository

PRINTS = """
from stages.common.errors import one_line_errors

@one_line_errors
def main():
    print("x" * 100_000)
    print("a line", flush={flush})

main()
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("flush", [True, False])
@pytest.mark.parametrize(
    ("target", "reason"),
    [(">/dev/full", "No space left on device; free some space"), ("| true", "Broken pipe")],
)
def test_unwritable_standard_output_ends_in_one_line(
    target: str, reason: str, flush: bool, unbuffered: str
) -> None:
    script = PRINTS.format(flush=flush)
    command = ("bash", "-c", f'set -o pipefail; "$0" -c "$1" {target}', sys.executable, script)
    result = Repository(ROOT).run(*command, PYTHONUNBUFFERED=unbuffered)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert reason in result.stderr
    assert result.stderr.endswith(" and run it again\n")
    assert result.stderr.count("\n") == 1
