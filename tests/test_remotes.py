"""Results shared between machines through a remote, and versions kept in the cache."""

import shutil
from pathlib import Path

from stages.common.hashing import sha256
from tests.repository import ROOT, Repository, training_results


def test_results_that_are_pulled_or_merged_are_not_trained_again(
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
    # Its own experiments return the same way.
    other.check("git", "config", "user.name", "tests")
    other.check("git", "config", "user.email", "tests@example.org")
    other.check("dvc", "exp", "run", "--name", "low-dropout", "-S", "models.simple_cnn.dropout=0.1")
    other.check("dvc", "exp", "push", "--quiet", "origin", "low-dropout")
    clone.check("dvc", "exp", "pull", "--quiet", "origin", "low-dropout")
    clone.check("dvc", "exp", "apply", "low-dropout")
    assert "dropout: 0.1" in (clone.path / "params.yaml").read_text()
    assert clone.changed_stages() == set()
    assert clone.stages_run("repro") == []

    # Merged as in docs/remotes-and-teams.md, they are only compared anew.
    changed = clone.digests(training_results("simple_cnn"))
    clone.check("git", "reset", "--quiet", "--hard")
    clone.check("dvc", "exp", "branch", "low-dropout", "other")
    clone.set_params("notebook_accuracy.simple_cnn=0.5")
    assert clone.stages_run("repro") == ["settings", "compare"]
    clone.check("git", "commit", "--quiet", "--all", "--message", "another notebook")
    merge = clone.run("git", "merge", "other")
    assert "CONFLICT (content): Merge conflict in dvc.lock" in merge.stdout
    clone.check("git", "checkout", "--theirs", "dvc.lock", "metrics")
    clone.check("dvc", "pull", "--quiet")
    assert clone.stages_run("repro") == ["settings", "compare"]
    clone.check("git", "add", "dvc.lock", "metrics")
    clone.check("git", "commit", "--quiet", "--no-edit")
    assert clone.digests(training_results("simple_cnn")) == changed
    assert clone.changed_stages() == set()


def test_tag_publishes_a_model(clone: Repository, tmp_path: Path) -> None:
    clone.check("git", "tag", "--annotate", "simple-cnn@v1.0.0", "--message", "one epoch")
    target = str(tmp_path / "model.keras")
    clone.check("dvc", "artifacts", "get", str(clone.path), "simple-cnn", "--out", target)
    assert sha256(Path(target)) == sha256(clone.path / "models/simple_cnn.keras")


def test_image_edited_in_place_returns_from_the_cache(repository: Repository) -> None:
    (repository.path / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc/config", repository.path / ".dvc/config")
    image = repository.path / "flowers/rose/1.png"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"version 1")
    repository.check("dvc", "add", "flowers")
    repository.check("git", "add", "flowers.dvc")
    image.write_bytes(b"version 2")
    repository.check("dvc", "checkout", "--force")
    assert image.read_bytes() == b"version 1"
    image.write_bytes(b"version 2")
    repository.check("dvc", "add", "flowers")
    repository.check("git", "checkout", "flowers.dvc")
    repository.check("dvc", "checkout")
    assert image.read_bytes() == b"version 1"
