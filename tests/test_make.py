"""What `make` says before it installs anything, and that clones have the same bytes."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.repository import ROOT, Repository, copy_project, initialize

PREREQUISITES = ("sh", str(ROOT / ".ci/prerequisites"))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A Git repository with one commit."""
    repository = Repository(tmp_path / "repository")
    repository.path.mkdir()
    repository.check("git", "init", "--quiet")
    repository.check("git", "config", "user.name", "tests")
    repository.check("git", "config", "user.email", "tests@example.org")
    repository.check("git", "commit", "--quiet", "--allow-empty", "--message", "start")
    return repository


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


def test_python_that_is_missing_too_old_or_without_venv(repository: Repository) -> None:
    remedy = "install Python 3.11 or later, or name one: make PYTHON=python3.11"
    refuses(repository, "python3.99: not found; ", remedy, python="python3.99")
    refuses(repository, "/absent: not found; ", remedy, python="/absent")
    too_old = stand_in(repository.path, 'case "$2" in *version_info*) exit 1;; esac')
    refuses(repository, f"{too_old} is too old; ", remedy, python=too_old)
    without_venv = stand_in(repository.path, 'case "$2" in *ensurepip*) exit 1;; esac')
    refuses(repository, "cannot make virtual environments; install", python=without_venv)


def test_git_that_is_missing(repository: Repository, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    sh = shutil.which("sh")
    assert sh is not None
    (folder / "sh").symlink_to(sh)
    refuses(repository, "git: not found; install Git", PATH=str(folder))


def test_folder_that_is_no_clone(repository: Repository, tmp_path: Path) -> None:
    refuses(Repository(tmp_path), "this folder is not a Git clone", "clone the repository, or: ")
    inner = repository.path / "unpacked"  # a source archive within another repository
    inner.mkdir()
    refuses(Repository(inner), "this folder is not a Git clone", "clone the repository, or: ")


def test_repository_without_a_commit(repository: Repository) -> None:
    repository.check("git", "update-ref", "-d", "HEAD")
    refuses(repository, "no Git commit yet", "git add --all; git commit")


def test_folder_of_another_user(repository: Repository) -> None:
    safe = f"git config --global --add safe.directory '{repository.path}'"
    refuses(
        repository, "is another user's", safe, GIT_TEST_ASSUME_DIFFERENT_OWNER="1", LC_ALL="de_DE"
    )


def test_missing_identity_is_a_note(repository: Repository) -> None:
    for key in ("user.name", "user.email"):
        repository.check("git", "config", "--unset", key)
    repository.check("git", "config", "user.useConfigOnly", "true")
    no_identity = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "EMAIL": ""}
    result = repository.run(*PREREQUISITES, sys.executable, **no_identity)
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
