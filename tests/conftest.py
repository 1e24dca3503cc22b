"""Fixtures: one small trained repository, shared by all tests, cheap copies of it, an empty one."""

import fcntl
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.repository import Repository, copy_project, initialize, replace_large_networks

LONGEST = ("test_kills.py", "test_distributed.py", "test_train.py")
LINKED_BYTES = 1_000_000  # the pretrained weights, 95 MB, which no test edits in place


def pytest_configure() -> None:
    """Let Ctrl-C end pytest as usual, and reach the stages that tests start even under `nohup`.

    Importing `stages` changes the first; a process inherits which signals its parent ignores.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    isolate_git()


def isolate_git() -> None:
    """Let `git` see only the tests' repositories, and no settings of the machine, such as signing.

    Git names its repository to a hook in variables such as GIT_DIR, which win over the folder.
    """
    names = subprocess.check_output(["git", "rev-parse", "--local-env-vars"], text=True)
    for name in names.split():
        os.environ.pop(name, None)
    os.environ.update(GIT_CONFIG_GLOBAL=os.devnull, GIT_CONFIG_NOSYSTEM="1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need the trained repository, which `make test-fast` leaves out.

    They come first, the longest at the very beginning. One of pytest's processes starts with them;
    the others start further down the list and take over what is left.
    """

    def needs_training(item: pytest.Item) -> bool:
        return "first_run" in getattr(item, "fixturenames", ())

    for item in filter(needs_training, items):
        item.add_marker("pipeline")
    items.sort(key=lambda item: (not needs_training(item), item.path.name not in LONGEST))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A Git repository with one commit."""
    repository = Repository(tmp_path / "repository")
    repository.path.mkdir()
    repository.check("git", "init", "--quiet", "--initial-branch=main")
    repository.check("git", "config", "user.name", "tests")
    repository.check("git", "config", "user.email", "tests@example.org")
    repository.check("git", "commit", "--quiet", "--allow-empty", "--message", "start")
    return repository


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Repository, str]:
    """A repository in which `dvc repro` ran once on the sample, and its output.

    The first of pytest's parallel processes that needs it trains it for all of them.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder, output = shared / "trained", shared / "first_run.txt"
    with (shared / "trained.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not output.exists():
            shutil.rmtree(folder, ignore_errors=True)
            copy_project(folder)
            replace_large_networks(folder)
            repository = initialize(folder)
            printed = repository.check("dvc", "repro")
            repository.check("git", "add", "--all")
            repository.check("git", "commit", "--quiet", "--message", "trained")
            output.write_text(printed)
    return Repository(folder), output.read_text()


@pytest.fixture(scope="session")
def trained(first_run: tuple[Repository, str]) -> Repository:
    """The trained repository; tests must not change it."""
    repository, _ = first_run
    return repository


@pytest.fixture
def clone(trained: Repository, tmp_path: Path) -> Repository:
    """A copy of the trained repository for one test to change."""

    def link_large(source: str, target: str) -> str:
        if Path(source).stat().st_size > LINKED_BYTES:
            os.link(source, target)
        else:
            shutil.copy2(source, target)
        return target

    shutil.copytree(trained.path, tmp_path / "clone", copy_function=link_large, symlinks=True)
    return Repository(tmp_path / "clone")
