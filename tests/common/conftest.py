"""Fixtures: a working directory in which params.yaml can be edited."""

from pathlib import Path

import pytest

from tests.repository import ROOT


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the project's params.yaml, dvc.yaml and architectures."""
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages/architectures").symlink_to(ROOT / "stages/architectures")
    monkeypatch.chdir(tmp_path)
    return tmp_path
