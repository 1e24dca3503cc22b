"""In a hook Git names its repository in variables such as GIT_DIR, which win over the folder."""

import sys
from pathlib import Path

import pytest

from stages.training import provenance
from tests.repository import ROOT, Repository

SETTINGS = """[commit]
gpgsign = true
[gpg]
program = false
[core]
hooksPath = {hooks}
"""


def content(repository: Repository) -> dict[Path, bytes]:
    """What is in each file of a repository, those of Git included."""
    return {file: file.read_bytes() for file in repository.path.rglob("*") if file.is_file()}


def hook_variables(repository: Repository) -> dict[str, str]:
    """What Git may set in a hook of this repository."""
    git = repository.path / ".git"
    names = {"GIT_DIR": git, "GIT_WORK_TREE": git.parent, "GIT_INDEX_FILE": git / "index"}
    return {name: str(path) for name, path in names.items()}


def test_tests_change_no_repository_of_a_hook_and_use_no_settings_of_the_machine(
    repository: Repository, tmp_path: Path
) -> None:
    hook = tmp_path / "hooks/pre-commit"
    hook.parent.mkdir()
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    settings = tmp_path / "gitconfig"
    settings.write_text(SETTINGS.format(hooks=hook.parent))
    before = content(repository)
    test = "tests/test_make.py::test_complete_machine_gets_no_message"
    options = ("-p", "no:cacheprovider", f"--basetemp={tmp_path / 'inner'}")
    variables = hook_variables(repository) | {"GIT_CONFIG_GLOBAL": str(settings)}
    Repository(ROOT).check(sys.executable, "-m", "pytest", *options, test, **variables)
    assert content(repository) == before


def test_commit_of_a_model_is_that_of_the_working_directory(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Repository(tmp_path / "other")
    repository.check("git", "clone", "--quiet", ".", str(other.path))
    repository.check("git", "commit", "--quiet", "--allow-empty", "--message", "newer")
    for name, value in hook_variables(other).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "safe.directory")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(repository.path))
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.chdir(repository.path)
    newest = (repository.path / ".git/refs/heads/main").read_text().strip()
    assert provenance.git("rev-parse", "HEAD") == newest
    monkeypatch.chdir(tmp_path)
    assert provenance.git("rev-parse", "HEAD") is None
