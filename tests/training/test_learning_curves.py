"""DVCLive, which writes the learning curves, needs a commit."""

from pathlib import Path

import pytest

from stages.common.errors import StageError
from stages.training.learning_curves import LearningCurves
from tests.repository import Repository


def test_repository_without_a_commit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Repository(tmp_path).check("git", "init", "--quiet")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StageError, match=r"^error: curves: DVCLive .*; commit once, then run it"):
        LearningCurves(Path("curves"), [])
