"""Results shared between machines through a remote, and kept once on each disk."""

import subprocess
from pathlib import Path

from stages.support.files import sha256
from tests.conftest import Repository


def test_another_machine_pulls_the_results_and_reruns_nothing(
    clone: Repository, tmp_path: Path
) -> None:
    clone.check("dvc", "remote", "add", "--default", "shared", str(tmp_path / "remote"))
    clone.check("git", "commit", "--quiet", "--all", "--message", "a shared remote")
    clone.check("dvc", "push", "--quiet")
    hub = str(tmp_path / "hub")
    clone.check("git", "clone", "--quiet", "--bare", ".", hub)
    clone.check("git", "remote", "add", "origin", hub)

    clone.check("git", "clone", "--quiet", hub, str(tmp_path / "other"))
    other = Repository(tmp_path / "other")
    assert not (other.path / "models/simple_cnn.keras").exists()
    other.check("dvc", "pull", "--quiet")
    assert other.changed_stages() == set()
    assert other.stages_run("repro") == []
    # What it trains comes back the same way.
    other.check("git", "config", "user.name", "tests")
    other.check("git", "config", "user.email", "tests@example.org")
    other.check("dvc", "exp", "run", "--name", "wider", "-S", "models.simple_cnn.dropout=0.1")
    other.check("dvc", "exp", "push", "--quiet", "origin", "wider")
    clone.check("dvc", "exp", "pull", "--quiet", "origin", "wider")
    clone.check("dvc", "exp", "apply", "wider")
    assert "dropout: 0.1" in (clone.path / "params.yaml").read_text()
    assert clone.changed_stages() == set()
    assert clone.stages_run("repro") == []


def test_a_tag_publishes_a_model(clone: Repository, tmp_path: Path) -> None:
    clone.check("git", "tag", "--annotate", "simple-cnn@v1.0.0", "--message", "one epoch")
    target = str(tmp_path / "model.keras")
    clone.check("dvc", "artifacts", "get", str(clone.path), "simple-cnn", "--out", target)
    assert sha256(Path(target)) == sha256(clone.path / "models/simple_cnn.keras")


def test_an_output_stands_once_on_the_disk_and_is_protected(
    trained: Repository, tmp_path: Path
) -> None:
    output = trained.path / "data/train/x.npy"
    assert output.stat().st_mode & 0o222 == 0
    copy = ["cp", "--reflink=always", str(output), str(tmp_path / "copy")]
    if subprocess.run(copy, capture_output=True).returncode != 0:  # such copies share their blocks
        cached = (trained.path / ".dvc/cache/files").rglob("*")
        assert any(path.samefile(output) for path in cached if path.is_file())
