"""Every command has a usage text, and refuses what it does not know before it works.

Importing TensorFlow takes longer than all cases, so one process runs them for all tests.
"""

import json

import pytest

from tests.repository import ROOT, run_keras_script

COMMANDS = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts): file
    for folder in ("stages", "benchmarks")
    for file in sorted((ROOT / folder).rglob("*.py"))
    if '__name__ == "__main__"' in file.read_text()
    and file.stem != "pytorch_fast94"  # of `bench pytorch`, which runs it in another environment
}
WITH_ONE_ARGUMENT = {"stages.evaluate", "stages.tools.example_images", "stages.train"}
WITH_OWN_ARGUMENTS = {"benchmarks.bench", "stages.tools.predict"}
HELP = (["--help"], ["-h"], ["--help", "--nope"])
UNKNOWN_OPTIONS = (
    *(["--nope"], ["-x"], ["--hel"], ["--version"], ["--nope=1"], ["a", "--nope"]),
    *(["--\x1b[31m\n"], ["--\udcff"], ["--" + "x" * 10_000]),
)


def invalid(command: str) -> list[list[str]]:
    """Command lines that a command does not know."""
    arguments = [*UNKNOWN_OPTIONS]
    if command in WITH_ONE_ARGUMENT | WITH_OWN_ARGUMENTS:
        arguments.append([])
    if command not in WITH_OWN_ARGUMENTS:
        arguments += [["a", "b"], ["", ""], ["--", "-a", "b"]]
    if command not in WITH_ONE_ARGUMENT | WITH_OWN_ARGUMENTS:
        arguments += [["a"], [""]]
    return arguments


RUN_ALL = """
import contextlib, io, json, runpy, sys
from pathlib import Path

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
Result = tuple[list[str], str | int | None, str]  # arguments, exit status or error, output


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Result]]:
    """What each command does with each command line, in an empty folder."""
    folder = tmp_path_factory.mktemp("empty")
    cases = [(command, case) for command in COMMANDS for case in (*HELP, *invalid(command))]
    (folder / "cases.json").write_text(json.dumps(cases))
    ended, files = run_keras_script(RUN_ALL, folder)
    assert set(files) <= {"cases.json", ".dvc"}  # Matplotlib keeps its list of fonts in .dvc/tmp
    by_command: dict[str, list[Result]] = {command: [] for command in COMMANDS}
    for command, arguments, status, output in ended:
        by_command[command].append((arguments, status, output))
    return by_command


def test_all_stages_and_tools_are_tested() -> None:
    scripts = {f"stages.{file.stem}" for file in (ROOT / "stages").glob("[!_]*.py")}
    tools = {f"stages.tools.{file.stem}" for file in (ROOT / "stages/tools").glob("[!_]*.py")}
    assert scripts | tools | {"benchmarks.bench", "benchmarks.kill_large"} == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_usage_and_docstring(results: dict[str, list[Result]], command: str) -> None:
    docstring = COMMANDS[command].read_text().removeprefix('"""').split('"""')[0]
    for arguments, status, output in results[command]:
        if arguments in HELP:
            assert status == 0
            assert output.startswith(f"usage: python -m {command} [-h]")
            assert docstring in output


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_arguments_are_refused(results: dict[str, list[Result]], command: str) -> None:
    refused = [result for result in results[command] if result[0] not in HELP]
    assert len(refused) == len(invalid(command))
    for arguments, status, output in refused:
        if command == "benchmarks.bench":  # argparse's own messages
            assert status == 2, arguments
            assert "error: " in output
            continue
        assert isinstance(status, str), arguments
        assert status.startswith("error: "), arguments
        assert status.endswith(f"; see `python -m {command} --help`"), arguments
        assert status.isprintable()
        assert len(status) < 500
        assert output == ""
