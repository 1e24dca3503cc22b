"""Full disks and read-only folders for a single command, and what its error must look like."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.repository import Repository

# Runs a shell command with mounts that only it sees; needs no rights outside a user namespace.
UNSHARE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]


def can_mount() -> bool:
    """Whether this machine lets an ordinary user mount a file system."""
    try:
        test = subprocess.run([*UNSHARE, "mount -t tmpfs tmpfs /mnt"], capture_output=True)
    except FileNotFoundError:  # no `unshare`, as on macOS
        return False
    return test.returncode == 0


needs_mounts = pytest.mark.skipif(
    not can_mount(), reason="this machine does not let ordinary users mount file systems"
)


def full(folder: str, kilobytes: int, keep: str = "") -> str:
    """A shell command that mounts a small disk on a folder, with a copy of the folder's `keep`."""
    copy = f"&& cp -r .kept/{keep} {folder}" if keep else ""
    return f"cp -r {folder} .kept; mount -t tmpfs -o size={kilobytes}k tmpfs {folder} {copy}"


def read_only(folder: str) -> str:
    """A shell command that makes a folder read-only."""
    return f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}"


def run_mounted(
    repository: Repository, prepare: str, stage: str
) -> subprocess.CompletedProcess[str]:
    """Run a stage with its arguments after a shell command that mounts something."""
    return repository.run(*UNSHARE, f"{prepare} && exec {sys.executable} -m stages.{stage}")


def outputs(repository: Repository) -> dict[Path, bytes]:
    """The content of every output of the pipeline, without checkpoints."""
    folders = ("data", "models", "metrics")
    files = [path for folder in folders for path in (repository.path / folder).rglob("*")]
    return {
        path: path.read_bytes()
        for path in files
        if path.is_file() and "checkpoints" not in path.parts
    }


def assert_one_line(
    result: subprocess.CompletedProcess[str], *expected: str, status: int = 1
) -> None:
    """A stage failed with one line on standard error that contains each of these texts."""
    assert result.returncode == status, result.stdout + result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, result.stderr
    assert all(text in errors[0] for text in expected), errors[0]
    assert "Traceback" not in result.stderr
    print(errors[0])


def replace(path: Path, content: bytes) -> None:
    """Replace a file, which may be linked to DVC's cache."""
    path.unlink()
    path.write_bytes(content)
