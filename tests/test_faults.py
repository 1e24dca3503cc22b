"""Full or read-only disks and damaged files: a stage ends with one line and changes no output."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stages.common.errors import StageError
from stages.dataset import splits
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
from tests.repository import ROOT, Repository, run_keras_script


@needs_mounts
@pytest.mark.parametrize(
    ("stage", "prepare"),
    [
        ("fetch", full("data", 100)),
        ("preprocess", full("data", 2000, "archives")),
        ("fetch_weights", full("data", 1000)),
        ("train simple_cnn", full("models", 300)),
        ("train simple_cnn", full("metrics", 0).replace("size=0k", "nr_inodes=3")),
        ("evaluate simple_cnn", full("metrics", 4) + " && head -c 4096 /dev/zero >metrics/fill"),
        ("compare", full("metrics", 120, "curves")),
    ],
    ids=[
        "fetch",
        "preprocess",
        "fetch_weights",
        "train: models",
        "train: metrics",
        "evaluate",
        "compare",
    ],
)
def test_full_disk_ends_a_stage_with_one_line(clone: Repository, stage: str, prepare: str) -> None:
    before = outputs(clone)
    assert_one_line(run_mounted(clone, prepare, stage), "No space left on device", "free some")
    assert outputs(clone) == before


@needs_mounts
@pytest.mark.parametrize(
    ("stage", "folder"),
    [
        ("fetch", "data"),
        ("preprocess", "data"),
        ("train simple_cnn", "models"),
        ("evaluate simple_cnn", "metrics"),
        ("compare", "metrics"),
    ],
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
    clone.set_params("epochs=3")
    # Space for two checkpoints of half a megabyte each, but not for the model as well.
    train = f"{sys.executable} -m stages.train simple_cnn"
    command = (
        f"mount -t tmpfs -o size=1100k tmpfs models; {train}; echo status $?;"
        f"mount -o remount,size=9m models; {train} && cp models/simple_cnn.keras resumed.keras"
    )
    result = clone.run(*UNSHARE, command)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "status 1" in result.stdout
    assert result.stderr.count("error: models/simple_cnn.keras: No space left on device") == 1
    assert "resuming simple_cnn after epoch 3 of 3" in result.stdout
    assert "Traceback" not in result.stderr
    clone.check(*train.split())
    resumed = (clone.path / "resumed.keras").read_bytes()
    assert resumed == (clone.path / "models/simple_cnn.keras").read_bytes()


def save(path: Path, array: np.ndarray) -> None:
    path.unlink()  # it may be linked to DVC's cache
    np.save(path, array)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "missing folder": lambda folder: shutil.rmtree(folder),
    "missing file": lambda folder: (folder / "x.npy").unlink(),
    "empty file": lambda folder: replace(folder / "x.npy", b""),
    "truncated": lambda folder: replace(folder / "x.npy", (folder / "x.npy").read_bytes()[:-1000]),
    "not an array": lambda folder: replace(folder / "x.npy", b"hello" * 100),
    "pickled": lambda folder: save(folder / "x.npy", np.array([{}], object)),
    "other size": lambda folder: save(folder / "x.npy", np.zeros((40, 28, 28, 1), np.float32)),
    "other type": lambda folder: save(folder / "x.npy", np.zeros((40, 32, 32, 3), np.uint8)),
    "no rows": lambda folder: save(folder / "x.npy", np.zeros((0, 32, 32, 3), np.float32)),
    "a row less": lambda folder: save(folder / "x.npy", np.zeros((39, 32, 32, 3), np.float32)),
    "labels not one-hot": lambda folder: save(folder / "y.npy", np.zeros(40, np.float32)),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_arrays_are_refused_in_one_line(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    folder = tmp_path / "test"
    splits.create(folder, 40, (32, 32, 3), 10, np.dtype(np.float32))
    assert splits.Split(folder).count == 40
    damage(folder)
    with pytest.raises(StageError) as caught:
        splits.Split(folder)
    assert f"error: {folder}" in str(caught.value)
    assert "; run `dvc repro --force preprocess`" in str(caught.value)


@pytest.mark.parametrize(("stage", "split"), [("train", "validation"), ("evaluate", "test")])
def test_stage_with_damaged_arrays_changes_no_output(
    clone: Repository, stage: str, split: str
) -> None:
    save(clone.path / f"data/{split}/x.npy", np.zeros((40, 28, 28, 1), np.float32))
    before = outputs(clone)
    result = clone.run(sys.executable, "-m", f"stages.{stage}", "simple_cnn")
    assert_one_line(result, f"data/{split}/x.npy: is float32 (40, 28, 28, 1), not")
    assert outputs(clone) == before


# One process for all of them, because importing TensorFlow takes longer than the rest.
LOAD_DAMAGED_MODELS = """
import json, pathlib, zipfile
import keras
from stages.training import model_file

path = pathlib.Path("models/simple_cnn.keras")
intact = path.read_bytes()
messages = {}

def load(damage, content=None):
    if content is not None:
        path.unlink()
        path.write_bytes(content)
    try:
        model_file.load(path)
        messages[damage] = "loaded"
    except SystemExit as error:
        messages[damage] = error.code

def save_and_load(damage, *layers):
    path.unlink()
    keras.Sequential(layers).save(path)
    load(damage)

load("intact")
load("empty", b"")
load("truncated", intact[: len(intact) // 2])
load("text", b"hello")
load("flipped bit", intact[:30000] + bytes([intact[30000] ^ 1]) + intact[30001:])

def network(shape):
    return keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(10)

code = keras.layers.Lambda(lambda x: x + len(__import__("os").listdir(".")))
save_and_load("other shape", *network((28, 28, 1)))
save_and_load("code in a layer", *network((32, 32, 3)), code)

load("intact again", intact)
with zipfile.ZipFile(path) as one, zipfile.ZipFile("models/fast94.keras") as other:
    parts = {name: one.read(name) for name in one.namelist()}
    parts["model.weights.h5"] = other.read("model.weights.h5")
path.unlink()
with zipfile.ZipFile(path, "w") as mixed:
    for name, content in parts.items():
        mixed.writestr(name, content)
load("weights of another network")
print(json.dumps(messages))
"""


def test_damaged_and_foreign_models_are_refused_in_one_line(clone: Repository) -> None:
    messages = run_keras_script(LOAD_DAMAGED_MODELS, clone.path)
    assert messages.pop("intact") == messages.pop("intact again") == "loaded"
    assert len(messages) == 7
    for damage, message in messages.items():
        assert message.startswith("error: models/simple_cnn.keras: "), damage
        assert message.endswith("; run `dvc repro --force train@simple_cnn`"), damage
        assert "\n" not in message, damage


def test_damaged_pretrained_weights_end_training_with_one_line(clone: Repository) -> None:
    architecture = "stages/architectures/resnet50_finetune.py"
    shutil.copy2(ROOT / architecture, clone.path / architecture)  # the small network reads none
    file = clone.path / "data/weights/imagenet/resnet50_notop.weights.h5"
    replace(file, b"not weights")
    before = outputs(clone)
    result = clone.run(sys.executable, "-m", "stages.train", "resnet50_finetune")
    assert_one_line(result, "resnet50_finetune: the network could not be built")
    assert outputs(clone) == before
