"""`make demo` in a small repository, with a stand-in for `dvc` that records its calls."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stages.tools.demo import SETTINGS
from tests.repository import ROOT, Repository

COMMAND = (sys.executable, "-m", "stages.tools.demo")
DVC = """#!/bin/sh
echo "$PWD: $*" >> ../calls.txt
trap 'exit 130' INT
while [ -e ../wait ]; do sleep 0.02; done
echo "demo's report" > metrics/report.md
test ! -e ../fail
"""


class DemoRepository(Repository):
    """A repository in which `make demo` calls the stand-in for `dvc`."""

    def environment(self) -> dict[str, str]:
        return {"PATH": f"{self.path.parent}/bin:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}

    def demo(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(*COMMAND, *arguments, **self.environment())

    def refuses(self, *expected: str, arguments: tuple[str, ...] = ()) -> None:
        """The command ends in one line with these texts, without a call of `dvc`."""
        calls = self.calls()
        result = self.demo(*arguments)
        assert result.returncode == 1
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        assert all(text in result.stderr for text in expected), result.stderr
        assert self.calls() == calls

    def calls(self) -> list[str]:
        file = self.path / "calls.txt"
        return file.read_text().splitlines() if file.exists() else []

    def commit(self, folder: str) -> None:
        identity = ("-c", "user.name=tests", "-c", "user.email=tests@example.org")
        command = ("commit", "--quiet", "--allow-empty", "--message", "x")
        self.check("git", "-C", folder, *identity, *command)


@pytest.fixture
def repository(tmp_path: Path) -> DemoRepository:
    dvc = tmp_path / "bin/dvc"
    dvc.parent.mkdir()
    dvc.write_text(DVC)
    dvc.chmod(0o755)
    folder = tmp_path / "repository"
    for name in ("requirements.lock", "metrics/comparison.png", "metrics/curves/loss.tsv"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("recorded")
    (folder / ".gitignore").write_text("/demo/\n/.dvc/\n.partial-*\n/.venv\n/calls.txt\n")
    os.utime(folder / "requirements.lock", (0, 0))
    repository = DemoRepository(folder)
    repository.check("git", "init", "--quiet")
    repository.check("git", "add", "--all")
    repository.commit(".")
    return repository


def test_demo_runs_the_pipeline_in_a_clone_and_says_on_what(repository: DemoRepository) -> None:
    (repository.path / "edit.py").touch()
    (repository.path / "requirements.lock").write_text("edited")
    result = repository.demo()
    assert result.returncode == 0, result.stderr
    head = repository.check("git", "rev-parse", "--short=7", "HEAD").strip()
    assert f"demo/ is a clone of commit {head}, without 2 uncommitted changes\n" in result.stdout
    assert "demo's report" in result.stdout
    assert f"page: {repository.path}/demo/metrics/report.html\n" in result.stdout
    (call,) = repository.calls()
    assert call.startswith(f"{repository.path}/demo: exp run ")
    assert all(f"--set-param {setting}" in call for setting in SETTINGS)


def test_clone_has_no_recorded_results_and_the_installed_packages(
    repository: DemoRepository,
) -> None:
    (repository.path / "fail").touch()
    repository.demo()
    demo = repository.path / "demo"
    assert not (demo / "metrics/comparison.png").exists()
    assert (demo / "metrics/curves/loss.tsv").exists()  # training overwrites it
    assert (demo / ".venv").resolve() == repository.path / ".venv"
    assert (demo / "requirements.lock").stat().st_mtime == 0  # nothing new to install


def test_failed_demo_resumes_in_the_same_clone(repository: DemoRepository) -> None:
    (repository.path / "fail").touch()
    result = repository.demo()
    assert result.returncode == 1
    assert result.stderr == "error: the demo is incomplete; `make demo` resumes it\n"
    (repository.path / "demo/checkpoint").touch()
    (repository.path / "fail").unlink()
    assert repository.demo().returncode == 0
    assert (repository.path / "demo/checkpoint").exists()
    assert len(repository.calls()) == 2


@pytest.mark.parametrize("folder", ["demo", "."])
def test_demo_of_another_commit_is_refused_and_kept(
    repository: DemoRepository, folder: str
) -> None:
    repository.demo()
    repository.commit(folder)
    (repository.path / "demo/experiment").touch()
    repository.refuses("demo/ has commits of its own or is of another", "`make clean-demo`")
    assert (repository.path / "demo/experiment").exists()


def test_folder_that_is_no_clone_is_refused_and_kept(repository: DemoRepository) -> None:
    (repository.path / "demo").mkdir()
    (repository.path / "demo/notes.txt").touch()
    repository.refuses("demo/ has commits of its own or is of another", "`make clean-demo`")
    assert (repository.path / "demo/notes.txt").exists()


def test_interrupted_clone_is_made_again(repository: DemoRepository) -> None:
    leftover = repository.path / ".partial-demo/metrics/report.md"
    leftover.parent.mkdir(parents=True)
    leftover.touch()
    assert repository.demo().returncode == 0
    assert not leftover.exists()
    assert (repository.path / "demo/metrics/curves/loss.tsv").exists()


def test_repository_without_commit_is_refused_and_leaves_no_clone(
    repository: DemoRepository,
) -> None:
    repository.check("git", "update-ref", "-d", "HEAD")
    repository.refuses("git rev-parse: ")
    assert not (repository.path / "demo").exists()


def test_second_demo_and_removal_wait_for_the_first_which_ctrl_c_ends(
    repository: DemoRepository, tmp_path: Path
) -> None:
    (repository.path / "wait").touch()
    log = tmp_path / "log"
    first = repository.start(*COMMAND, log=log, **repository.environment())
    while not repository.calls():
        assert first.poll() is None, log.read_text()
        time.sleep(0.01)
    for arguments in ((), ("--remove",)):
        repository.refuses(f"demo: already running (pid {first.pid})", arguments=arguments)
    assert (repository.path / "demo").exists()
    os.killpg(first.pid, signal.SIGINT)  # as a terminal does
    assert first.wait(timeout=10) == 1
    assert log.read_text().endswith("error: the demo is incomplete; `make demo` resumes it\n")


def test_clean_demo_removes_the_clone(repository: DemoRepository) -> None:
    repository.demo()
    assert repository.demo("--remove").returncode == 0
    assert not (repository.path / "demo").exists()
    assert repository.demo("--remove").returncode == 0  # nothing to do
    assert (repository.path / "metrics/comparison.png").exists()
    repository.refuses("unrecognized arguments: --clean; see", arguments=("--clean",))
