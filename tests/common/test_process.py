"""What a stage notes of its inputs; tests/test_edits.py edits them while it runs."""

import sys
from pathlib import Path

import pytest
import yaml

from stages.common import process
from tests.repository import ROOT, Repository


def test_inputs_are_those_that_dvc_records(
    trained: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained.path)
    for name, stage in yaml.safe_load(Path("dvc.lock").read_text())["stages"].items():
        recorded = [*(dep["path"] for dep in stage["deps"]), *stage.get("params", [])]
        inputs = {str(path) for path in process.inputs(name)}
        assert inputs == {*recorded}, name


def test_stamps_are_those_of_files_that_decide_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a/b/x.py", "a/.x.py.swp", "a/x.py~", "a/__pycache__/x.pyc", "file"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)
    Path("a/link.py").symlink_to("../file")
    Path("a/loop").symlink_to(".")
    Path("a/lost").symlink_to("nowhere")
    found = process.stamps([Path("a"), Path("file"), Path("absent")])
    assert {*map(str, found)} == {"a/b/x.py", "a/link.py", "file"}
    Path("a/b/x.py").write_text("longer text")
    assert {path for path, _ in process.stamps(found).items() ^ found.items()} == {Path("a/b/x.py")}


def test_stage_on_windows_ends_in_one_line() -> None:
    script = "import sys; sys.modules['fcntl'] = None; import stages.settings"
    result = Repository(ROOT).run(sys.executable, "-c", script)
    assert result.returncode == 1
    assert result.stderr.startswith("error: stages need Linux or macOS; on Windows, ")
    assert result.stderr.count("\n") == 1
