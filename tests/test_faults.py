"""Full or read-only disks and damaged files: a stage ends with one line, and DVC repairs the rest.

A stage that fails changes no output.
"""

import json
import sys

import pytest

from stages.common.errors import StageError
from stages.common.quiet_keras import keras
from stages.training import model_file
from tests.faults import (
    UNSHARE,
    assert_one_line,
    full,
    needs_mounts,
    outputs,
    read_only,
    replace,
    run_mounted,
)
from tests.params_edits import PARAMS
from tests.repository import Repository

NO_SPACE = "No space left on device; free some space and run it again"
FULL = {
    "fetch_weights": full("data", 1000, "settings"),
    "train simple_cnn": full("metrics", 0).replace("size=0k", "nr_inodes=3"),
    "evaluate simple_cnn": full("metrics", 4) + " && head -c 4096 /dev/zero >metrics/fill",
}
FULL_FOR_DVC = {
    "preprocess": full("data", 300, "settings") + " && cp .kept/source.json data",
    "compare": full("metrics", 120, "curves") + " && cp -r .kept/provenance metrics",
}
DAMAGED = [
    "models/simple_cnn.keras",
    "data/test/x.npy",
    "data/files.csv",
    "data/evaluations/simple_cnn/evaluation.json",
    "data/evaluations/resnet50_finetune/probabilities.npy",
    "metrics/curves/fast94/plots/metrics/val_loss.tsv",
]


@needs_mounts
@pytest.mark.parametrize(("stage", "prepare"), FULL.items(), ids=FULL.keys())
def test_full_disk_ends_a_stage_with_one_line(clone: Repository, stage: str, prepare: str) -> None:
    before = outputs(clone)
    assert_one_line(run_mounted(clone, prepare, stage), NO_SPACE)
    assert outputs(clone) == before


@needs_mounts
@pytest.mark.parametrize(("stage", "prepare"), FULL_FOR_DVC.items(), ids=FULL_FOR_DVC.keys())
def test_repro_on_a_full_disk_names_it_and_succeeds_once_there_is_space(
    clone: Repository, stage: str, prepare: str
) -> None:
    before = outputs(clone)
    repro = f"dvc repro --force --single-item {stage}"
    assert_one_line(clone.run(*UNSHARE, f"{prepare} && exec {repro}"), NO_SPACE, status=255)
    clone.check("dvc", "repro")
    assert outputs(clone) == before


@needs_mounts
@pytest.mark.parametrize(
    ("stage", "folder"), [("settings", "data"), ("fetch", "data"), ("compare", "metrics")]
)
def test_read_only_folder_ends_a_stage_with_one_line(
    clone: Repository, stage: str, folder: str
) -> None:
    before = outputs(clone)
    result = run_mounted(clone, read_only(folder), stage)
    assert_one_line(result, "Read-only file system", folder)
    assert outputs(clone) == before


@needs_mounts
def test_training_that_filled_the_disk_resumes_once_there_is_space(clone: Repository) -> None:
    clone.set_params("epochs=2")
    # Space for two checkpoints of half a megabyte each, but not for the model as well.
    command = (
        "mount -t tmpfs -o size=1100k tmpfs models; dvc repro train@simple_cnn; echo status $?;"
        "mount -o remount,size=9m models; dvc repro train@simple_cnn"
    )
    result = clone.run(*UNSHARE, command)
    assert_one_line(result, f"error: models/simple_cnn.keras: {NO_SPACE}", status=0)
    assert "status 255" in result.stdout
    assert "resuming simple_cnn after epoch 2 of 2" in result.stdout


@needs_mounts
def test_features_that_fill_the_disk_end_training_with_one_line(clone: Repository) -> None:
    entry = json.dumps(PARAMS["models"]["resnet50_features"])
    clone.apply_params(f"models.resnet50_features={entry}")
    result = run_mounted(clone, full("models", 8), "train resnet50_features")
    assert_one_line(result, NO_SPACE, "features")


def test_damaged_results_are_named_in_one_line_and_restored_by_repro(clone: Repository) -> None:
    intact = outputs(clone)
    for file in DAMAGED:
        replace(clone.path / file, b"not\na result")
    damaged = outputs(clone)
    commands = {"data/test": ["compare"], "models/simple_cnn.keras": ["evaluate", "simple_cnn"]}
    for output, (stage, *model) in commands.items():
        result = clone.run(sys.executable, "-m", f"stages.{stage}", *model)
        assert_one_line(result, f"error: {output}: damaged: ", "run `dvc repro`, which restores it")
    assert outputs(clone) == damaged
    assert clone.stages_run("repro") == []
    assert outputs(clone) == intact


def test_model_file_that_is_damaged_or_has_code_is_not_loaded(clone: Repository) -> None:
    path = clone.path / "models/simple_cnn.keras"
    content = path.read_bytes()
    assert model_file.load(path).count_params() == 42_442
    for damaged in (content[: len(content) // 2], content.replace(b"PK", b"XY", 1)):
        replace(path, damaged)
        with pytest.raises(StageError, match=r"^error: .+: damaged: .+; run `dvc repro`, .+$"):
            model_file.load(path)
    path.unlink()
    code = keras.layers.Lambda(lambda x: x + len(__import__("os").listdir(".")))
    keras.Sequential([keras.Input((2,)), code]).save(path)
    with pytest.raises(StageError, match="damaged: "):
        model_file.load(path)


def test_too_little_memory_for_tensorflow_ends_a_stage_with_one_line(clone: Repository) -> None:
    before = outputs(clone)
    result = clone.run("sh", "-c", f"ulimit -v 600000; {sys.executable} -m stages.train simple_cnn")
    assert_one_line(result, "error: Keras cannot be imported: ", "; free some memory, or install")
    assert outputs(clone) == before


def test_clock_before_1980_ends_training_before_its_first_epoch(clone: Repository) -> None:
    script = (
        "import runpy, sys, time; time.localtime = lambda: time.gmtime(0); "
        "sys.argv[1:] = ['simple_cnn']; runpy.run_module('stages.train', run_name='__main__')"
    )
    result = clone.run(sys.executable, "-c", script)
    assert_one_line(result, "error: this machine's clock says 1970; set it, then run it again")
    assert "Epoch" not in result.stdout
