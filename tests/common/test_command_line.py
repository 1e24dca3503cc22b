"""Every command has a usage text, and refuses what it does not know before it works.

One process runs all command lines: importing Keras takes longer than they do.
"""

import json
import sys
from pathlib import Path

import pytest

from stages.common import command_line
from stages.common.errors import StageError
from tests.repository import ROOT, run_keras_script

COMMANDS = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts): file
    for folder in ("stages", "benchmarks")
    for file in sorted((ROOT / folder).rglob("*.py"))
    if '__name__ == "__main__"' in file.read_text()
    and file.stem != "pytorch_networks"  # of `bench pytorch`, which runs it in another environment
}
WITH_ONE_ARGUMENT = {"stages.evaluate", "stages.tools.example_images", "stages.train"}
WITH_SUBCOMMANDS = {"benchmarks.bench"}  # argparse's own messages
HELP = (["--help"], ["--help", "--nope"])
UNKNOWN_OPTIONS = (["--nope"], ["--hel"], ["a", "--nope=1"], ["--\x1b[31m\n\udcff" + "x" * 10_000])
RUN_ALL = """
import contextlib, io, json, os, runpy, sys
from pathlib import Path
os.environ["KERAS_BACKEND"] = "numpy"  # faster to import

results = []
for command, arguments in json.loads(Path("cases.json").read_text()):
    sys.argv = [command, *arguments]
    output, status = io.StringIO(), "it ended"
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            runpy.run_module(command, run_name="__main__")
        except SystemExit as error:
            status = error.code
        except BaseException as error:
            status = repr(error)
    results.append([command, arguments, status, output.getvalue()])
print(json.dumps([results, sorted(map(str, Path().iterdir()))]))
"""


@pytest.mark.parametrize("name", ["MemoryError", "ResourceExhaustedError"])
def test_too_little_memory_ends_in_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def main() -> None:
        raise {"MemoryError": MemoryError}.get(name, type(name, (Exception,), {}))()

    monkeypatch.setattr(sys, "argv", ["command"])
    with pytest.raises(StageError, match=r"^error: out of memory; free some, or lower batch_size"):
        command_line.run(main, command_line.parser("command", None))


def unknown(command: str) -> list[list[str]]:
    """Command lines that a command does not know."""
    if command == "stages.tools.predict":
        return [*UNKNOWN_OPTIONS, []]
    number = [[]] if command in WITH_ONE_ARGUMENT | WITH_SUBCOMMANDS else [["a"], [""]]
    return [*UNKNOWN_OPTIONS, ["a", "b"], *number]


def test_every_command_shows_its_usage_and_refuses_unknown_arguments(tmp_path: Path) -> None:
    cases = [(command, case) for command in COMMANDS for case in (*HELP, *unknown(command))]
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    results, files = run_keras_script(RUN_ALL, tmp_path)
    assert [(command, arguments) for command, arguments, *_ in results] == cases
    assert set(files) <= {"cases.json", ".dvc"}  # Matplotlib keeps its list of fonts in .dvc/tmp
    for command, arguments, status, output in results:
        if arguments in HELP:
            docstring = COMMANDS[command].read_text().removeprefix('"""').split('"""')[0]
            assert status == 0, command
            assert output.startswith(f"usage: python -m {command} [-h]")
            assert docstring in output
        elif command in WITH_SUBCOMMANDS:
            assert (status, "error: " in output) == (2, True), arguments
        else:
            assert str(status).startswith("error: "), (command, arguments, status)
            assert status.endswith(f"; see `python -m {command} --help`")
            assert status.isprintable()
            assert len(status) < 500
            assert output == ""
