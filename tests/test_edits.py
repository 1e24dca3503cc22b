"""What is edited while a stage runs is never recorded as if the stage had used it."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.faults import assert_one_line, replace
from tests.repository import Repository, training_results, wait_until

ARCHITECTURE = "stages/architectures/simple_cnn.py"
TRAIN = ("dvc", "repro", "train@simple_cnn")


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def edit_during_training(
    clone: Repository, log: Path, epoch: int, edit: Callable[[], object]
) -> subprocess.CompletedProcess[str]:
    """Train simple_cnn with an edit in an epoch; returns what it printed, as standard error."""
    dvc = clone.start(*TRAIN, log=log)
    wait_until(lambda: f"Epoch {epoch}/" in log.read_text(), dvc, log)
    edit()
    return subprocess.CompletedProcess(TRAIN, dvc.wait(timeout=300), "", log.read_text())


def test_code_edited_during_training_ends_it_and_once_it_is_back_training_resumes(
    clone: Repository, tmp_path: Path
) -> None:
    clone.set_params("epochs=40")
    clone.check(*TRAIN)
    expected = clone.digests(training_results("simple_cnn"))
    clone.check("git", "checkout", "--quiet", "dvc.lock")  # so that it is trained again
    clone.check("rm", "-rf", ".dvc/cache/runs", "models/simple_cnn.keras")

    file = clone.path / ARCHITECTURE
    before = file.read_text()
    result = edit_during_training(
        clone, tmp_path / "log", 3, lambda: append(file, "\n# the next experiment\n")
    )
    message = f"error: {ARCHITECTURE}: changed while train@simple_cnn was running"
    assert_one_line(result, message, "`dvc repro` runs it again", status=255)
    assert "train@simple_cnn" in clone.changed_stages()
    assert not (clone.path / "models/simple_cnn.keras").exists()

    file.write_text(before)
    assert "resuming simple_cnn after epoch" in clone.check(*TRAIN)
    assert clone.digests(training_results("simple_cnn")) == expected


def test_parameter_edited_during_training_is_that_of_the_next_run(
    clone: Repository, tmp_path: Path
) -> None:
    clone.set_params("epochs=40")
    result = edit_during_training(
        clone, tmp_path / "log", 2, lambda: clone.set_params("models.simple_cnn.dropout=0.9")
    )
    assert result.returncode == 0
    trained = clone.digests(training_results("simple_cnn"))
    assert clone.changed_stages() >= {"settings"}
    stages = yaml.safe_load((clone.path / "dvc.lock").read_text())["stages"]
    assert stages["settings"]["params"]["params.yaml"]["models"]["simple_cnn"]["dropout"] == 0.5

    clone.check(*TRAIN)
    assert clone.digests(training_results("simple_cnn")) != trained
    clone.set_params("models.simple_cnn.dropout=0.5")
    assert clone.stages_run(*TRAIN[1:]) == []  # from the run cache
    assert clone.digests(training_results("simple_cnn")) == trained


def add_image(clone: Repository, name: str) -> None:
    (clone.path / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8)).save(clone.path / name)


def edit_params(clone: Repository) -> None:
    clone.set_params("notebook_accuracy.simple_cnn=0.5")


def replace_labels(clone: Repository) -> None:
    labels = np.load(clone.path / "data/test/y.npy")
    (clone.path / "data/test/y.npy").unlink()
    np.save(clone.path / "data/test/y.npy", labels[::-1])


# An edit of each stage's inputs, and the path that the error names.
EDITS: dict[str, tuple[Callable[[Repository], object], str]] = {
    "settings": (edit_params, "params.yaml"),
    "fetch": (lambda clone: add_image(clone, "images/cat/new.png"), "images/cat/new.png"),
    "fetch_weights": (
        lambda clone: append(clone.path / "stages/sources/npm.py", "# edited"),
        "stages/sources/npm.py",
    ),
    "preprocess": (
        lambda clone: replace(clone.path / "data/source.json", b"{}"),
        "data/source.json",
    ),
    "evaluate@simple_cnn": (replace_labels, "data/test/y.npy"),
    "compare": (edit_params, "params.yaml"),
}


@pytest.mark.parametrize(("stage", "edit", "path"), [(key, *x) for key, x in EDITS.items()])
def test_input_edited_while_a_stage_runs_ends_it_before_it_writes(
    clone: Repository, tmp_path: Path, stage: str, edit: Callable[[Repository], None], path: str
) -> None:
    if stage == "fetch":
        for name in ("cat", "dog"):
            add_image(clone, f"images/{name}/1.png")
            add_image(clone, f"images/{name}/2.png")
        clone.set_params("dataset=folder", "folder.path=images")
        clone.check("dvc", "repro", "settings")
    script = clone.path / f"stages/{stage.split('@')[0]}.py"
    waits = r"\1print('about to write', flush=True)\n\1import time; time.sleep(3)\n\1stage."
    script.write_text(re.sub(r"( +)stage\.(?=check_inputs)", waits, script.read_text()))

    log = tmp_path / "log"
    dvc = clone.start("dvc", "repro", "--force", "--single-item", stage, log=log)
    wait_until(lambda: "about to write" in log.read_text(), dvc, log)
    edit(clone)
    result = subprocess.CompletedProcess([], dvc.wait(timeout=60), "", log.read_text())
    assert_one_line(result, f"error: {path}: changed while {stage} was running", status=255)
    lock = yaml.safe_load((clone.path / "dvc.lock").read_text())
    for output in lock["stages"][stage]["outs"]:  # DVC has removed the earlier ones
        written = clone.path / output["path"]
        assert not written.is_file()
        assert not [*written.glob("*")]
    assert stage in clone.changed_stages()
