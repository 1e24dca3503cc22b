"""Whatever keeps DVCLive from opening the repository ends in one line."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import UNSHARE, needs_mounts
from tests.repository import Repository

OPEN = """
from pathlib import Path
from stages.training.learning_curves import LearningCurves
LearningCurves(Path("metrics/curves/simple_cnn"), [])
"""
MESSAGE = "error: metrics/curves/simple_cnn: DVCLive cannot open the repository: "


def assert_one_line(result: subprocess.CompletedProcess[str], reason: str) -> None:
    assert result.returncode == 1
    assert result.stderr.startswith(MESSAGE + reason)
    assert result.stderr.count("\n") == 1


@needs_mounts
def test_full_disk_of_dvc_database_ends_in_one_line(clone: Repository) -> None:
    fill = "mount -t tmpfs -o size=8k tmpfs /var/tmp; yes 2>/dev/null >/var/tmp/full; "
    result = clone.run(*UNSHARE, f"{fill} exec {sys.executable} -c '{OPEN}'")
    assert_one_line(result, "database or disk is full")


@pytest.mark.parametrize("content", ["[[[", "[core", "\0"])
def test_broken_git_configuration_ends_in_one_line(
    clone: Repository, tmp_path: Path, content: str
) -> None:
    (tmp_path / ".gitconfig").write_text(content)
    assert_one_line(clone.run(sys.executable, "-c", OPEN, HOME=str(tmp_path)), "")
