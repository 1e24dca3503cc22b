"""`make`: what it says before it installs anything, and the demo in a clone."""

import os
import re
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from stages.common.hashing import sha256
from stages.common.params import Params
from tests.params_edits import edited
from tests.repository import ROOT, Repository, copy_project, initialize

PREREQUISITES = ("sh", str(ROOT / ".ci/prerequisites"))
DVC = """#!/bin/sh
echo "$PWD: $*" >> "{folder}/calls.txt"
mkdir -p metrics && echo "the report" > metrics/report.md
test ! -e "{folder}/fail"
"""


def refuses(
    repository: Repository, *expected: str, python: str = sys.executable, **environment: str
) -> None:
    """The check ends in one line with these texts."""
    result = repository.run(*PREREQUISITES, python, **environment)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert all(text in result.stderr for text in expected), result.stderr


def stand_in(folder: Path, script: str) -> str:
    """A command for a Python that the script describes."""
    python = folder / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    return str(python)


def test_complete_machine_gets_no_message(repository: Repository) -> None:
    result = repository.run(*PREREQUISITES, sys.executable)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    result = repository.run(*PREREQUISITES, sys.executable, GIT_TRACE="1")
    assert (result.returncode, result.stdout) == (0, "")


def test_python_that_is_missing_too_old_or_without_venv(repository: Repository) -> None:
    remedy = "install Python 3.11 or later, or name one: make PYTHON=python3.11"
    refuses(repository, "python3.99: not found; ", remedy, python="python3.99")
    refuses(repository, "/absent: not found; ", remedy, python="/absent")
    too_old = stand_in(repository.path, 'case "$2" in *version_info*) exit 1;; esac')
    refuses(repository, f"{too_old} is too old; ", remedy, python=too_old)
    without_venv = stand_in(repository.path, 'case "$2" in *ensurepip*) exit 1;; esac')
    refuses(repository, "cannot make virtual environments; install", python=without_venv)


def test_git_that_is_missing(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "sh").symlink_to(str(shutil.which("sh")))
    refuses(repository, "git: not found; install Git", PATH=str(tmp_path))


def test_folder_that_is_no_clone(repository: Repository, tmp_path: Path) -> None:
    refuses(Repository(tmp_path), "this folder is not a Git clone", "clone the repository, or: ")
    inner = repository.path / "unpacked"  # a source archive within another repository
    inner.mkdir()
    refuses(Repository(inner), "this folder is not a Git clone", "clone the repository, or: ")


def test_folder_of_a_larger_repository_needs_a_commit(repository: Repository) -> None:
    inner = Repository(repository.path / "inner")
    inner.path.mkdir()
    (inner.path / "Makefile").touch()
    inner.check("git", "add", "Makefile")
    refuses(inner, "no Git commit yet", "git add --all; git commit")
    inner.check("git", "commit", "--quiet", "--message", "inner")
    inner.check(*PREREQUISITES, sys.executable)
    other = {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}
    refuses(inner, f"safe.directory '{repository.path}'", **other)


def test_repository_of_another_user_or_without_a_commit(repository: Repository) -> None:
    safe = f"git config --global --add safe.directory '{repository.path}'"
    other = {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1", "LC_ALL": "de_DE"}
    refuses(repository, "is another user's", safe, **other)
    repository.check("git", "update-ref", "-d", "HEAD")
    refuses(repository, "no Git commit yet", "git add --all; git commit")


def test_missing_identity_is_a_note(repository: Repository) -> None:
    repository.check("git", "config", "--remove-section", "user")
    repository.check("git", "config", "user.useConfigOnly", "true")
    result = repository.run(*PREREQUISITES, sys.executable, EMAIL="")
    assert result.returncode == 0
    assert result.stderr.startswith("note: Git does not know you")
    assert "git config --global user.email" in result.stderr
    assert result.stderr.count("\n") == 1


def test_make_reports_a_missing_python_before_it_installs_anything(tmp_path: Path) -> None:
    copy_project(tmp_path)
    copy = Repository(tmp_path)
    for target in ("setup", "demo", "test", "repro"):
        result = copy.run("make", "--no-print-directory", target, "PYTHON=python3.99")
        assert result.returncode == 2
        assert result.stderr.startswith("error: python3.99: not found; ")
        assert len(result.stderr.splitlines()) == 2  # the other is make's
        assert result.stdout == ""
    assert not (tmp_path / ".venv").exists()


def write_wheel(folder: Path, name: str) -> str:
    """Write a package with an empty module; returns its line for requirements.lock."""
    information = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    path = folder / f"{name}-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        for file, text in information.items():
            wheel.writestr(f"{name}-1.dist-info/{file}", text)
    return f"{name}==1 --hash=sha256:{sha256(path)}\n"


def test_setup_installs_in_venv_or_fails_whatever_the_settings_of_pip(
    repository: Repository, tmp_path: Path
) -> None:
    for name in ("Makefile", ".ci/prerequisites"):
        (repository.path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, repository.path / name)
    lock = "".join(write_wheel(tmp_path, name) for name in ("dvc", "keras"))
    (repository.path / "requirements.lock").write_text(lock)
    for name in ("dvc", "keras"):
        (tmp_path / f"{name}.py").touch()
    other = tmp_path / "other"
    (tmp_path / "pip.conf").write_text(f"[install]\nprefix = {other}\nroot = {other}\n")
    settings = {"PIP_USER": "1", "PIP_TARGET": str(other), "PYTHONPATH": str(tmp_path)}
    settings |= {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), "PIP_CONSTRAINT": os.devnull}
    settings |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    setup = ("make", "setup", f"PYTHON={sys.executable}")
    result = repository.run(*setup, **settings, PIP_DRY_RUN="1")
    assert result.returncode == 2
    assert "error: pip has not installed the packages in .venv; see: " in result.stderr
    assert not (repository.path / ".venv/installed").exists()
    repository.check(*setup, **settings)
    assert [*repository.path.glob(".venv/lib/python*/site-packages/keras.py")]
    assert (repository.path / ".venv/installed").exists()
    assert not other.exists()


def prepare_demo(repository: Repository, folder: str = ".") -> Repository:
    """Commit files to a folder with installed packages and a `dvc` that records its calls."""
    project = Repository(repository.path / folder)
    for name in ("Makefile", ".ci/prerequisites", "requirements.lock", ".gitignore"):
        (project.path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, project.path / name)
    project.check("git", "add", "--all")
    project.check("git", "commit", "--quiet", "--message", "files")
    os.utime(project.path / "requirements.lock", (0, 0))
    dvc = project.path / ".venv/bin/dvc"
    dvc.parent.mkdir(parents=True)
    (project.path / ".venv/installed").touch()
    dvc.write_text(DVC.format(folder=project.path.parent))
    dvc.chmod(0o755)
    (dvc.parent / "python3").symlink_to(sys.executable)
    return project


@pytest.fixture
def demo_repository(repository: Repository) -> Repository:
    """A repository for `make demo`."""
    return prepare_demo(repository)


def calls(repository: Repository) -> list[str]:
    """The calls of `dvc`: its working directory and arguments."""
    return (repository.path.parent / "calls.txt").read_text().splitlines()


def test_demo_runs_the_pipeline_in_a_clone_of_the_commit(demo_repository: Repository) -> None:
    (demo_repository.path / "Makefile").open("a").write("# edited\n")
    result = demo_repository.run("make", "--no-print-directory", "demo")
    assert result.returncode == 0, result.stderr
    demo = demo_repository.path / "demo"
    assert result.stdout == (
        "note: demo/ is a clone, without your uncommitted changes\n"
        f"\nthe report\n\npage: {demo}/metrics/report.html\n"
    )
    (call,) = calls(demo_repository)
    assert call.startswith(f"{demo}: exp run --set-param dataset=sample --set-param ")
    settings = [setting.removeprefix("++") for setting in call.split(" --set-param ")[1:]]
    assert Params.model_validate(edited(*settings)).epochs == 2
    assert (demo / ".venv").resolve() == demo_repository.path / ".venv"
    assert (demo / "requirements.lock").stat().st_mtime == 0  # nothing new to install
    assert "edited" not in (demo / "Makefile").read_text()


def test_demo_in_a_folder_of_a_larger_repository(repository: Repository) -> None:
    project = prepare_demo(repository, "my projects/images")
    (repository.path / "uncommitted").touch()
    result = project.run("make", "--no-print-directory", "demo", GIT_TRACE="1")
    assert result.returncode == 0, result.stderr
    demo = project.path / "demo/my projects/images"
    assert result.stdout == f"\nthe report\n\npage: {demo}/metrics/report.html\n"
    (call,) = calls(project)
    assert call.startswith(f"{demo}: exp run ")
    assert (demo / ".venv").resolve() == project.path / ".venv"
    assert (demo / "requirements.lock").stat().st_mtime == 0


def test_demo_in_a_hook_of_another_repository_is_of_this_one(
    demo_repository: Repository, tmp_path: Path
) -> None:
    git = tmp_path / "other/.git"
    demo_repository.check("git", "init", "--quiet", str(git.parent))
    demo_repository.check("make", "demo", GIT_DIR=str(git), GIT_INDEX_FILE=str(git / "index"))
    head = demo_repository.check("git", "rev-parse", "HEAD")
    assert Repository(demo_repository.path / "demo").check("git", "rev-parse", "HEAD") == head


def test_failed_demo_resumes_in_the_same_clone(demo_repository: Repository) -> None:
    (demo_repository.path / ".partial-demo").mkdir()  # left by an interrupted clone
    (demo_repository.path.parent / "fail").touch()
    result = demo_repository.run("make", "--no-print-directory", "demo")
    assert result.returncode == 2
    assert result.stderr.startswith("error: the demo is incomplete; make demo resumes it\n")
    (demo_repository.path / "demo/checkpoint").touch()
    (demo_repository.path.parent / "fail").unlink()
    demo_repository.check("make", "demo")
    assert (demo_repository.path / "demo/checkpoint").exists()
    assert len(calls(demo_repository)) == 2


def test_demo_of_another_commit_is_refused_and_kept_until_clean_demo(
    demo_repository: Repository,
) -> None:
    demo_repository.check("make", "demo")
    demo_repository.check("git", "commit", "--quiet", "--allow-empty", "--message", "newer")
    result = demo_repository.run("make", "--no-print-directory", "demo")
    assert result.returncode == 2
    assert result.stderr.startswith("error: demo/ is of another commit; make clean-demo removes it")
    assert len(calls(demo_repository)) == 1
    assert (demo_repository.path / "demo/Makefile").exists()
    demo_repository.check("make", "clean-demo")
    assert not (demo_repository.path / "demo").exists()
    demo_repository.check("make", "demo")


def test_make_needs_no_bash(tmp_path: Path) -> None:
    for command in ("sh", "make", "grep", "sed", "expand"):
        (tmp_path / command).symlink_to(str(shutil.which(command)))
    printed = Repository(ROOT).check("make", "help", PATH=str(tmp_path))
    assert "make .venv with the pinned packages" in printed


def test_docs_install_the_locked_versions_for_gpus() -> None:
    page = (ROOT / "docs/gpus-and-clusters.md").read_text()
    lock = (ROOT / "requirements.lock").read_text()
    for package, extra in (("tensorflow", "and-cuda"), ("jax", "cuda13")):
        locked = set(re.findall(rf"^{package}==(\S+)", lock, re.MULTILINE))
        (named,) = re.findall(rf"{package}\[{extra}\]==([\d.]+).*", page)
        assert named in locked
        assert all(version in page for version in locked)


def test_clone_has_the_same_bytes_with_any_line_ending_setting(tmp_path: Path) -> None:
    copy_project(tmp_path / "original")
    original = initialize(tmp_path / "original")
    command = ("git", "clone", "--quiet", "--config", "core.autocrlf=true", ".", "../clone")
    original.check(*command)
    clone = Repository(tmp_path / "clone")
    files = original.check("git", "ls-files").splitlines()
    assert ".ci/run" in files
    assert clone.digests(files) == original.digests(files)
