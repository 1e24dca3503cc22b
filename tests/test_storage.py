"""Disks that are full or read-only, and outputs that something else has damaged: one line each."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Repository

# A mount that is seen by one command only and needs no rights outside it.
UNSHARE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
can_mount = subprocess.run([*UNSHARE, "mount -t tmpfs tmpfs /mnt"], capture_output=True)
needs_mounts = pytest.mark.skipif(
    can_mount.returncode != 0, reason="this machine lets nobody mount a file system"
)


def outputs(repository: Repository) -> dict[Path, bytes]:
    folders = ("data", "models", "metrics")
    files = [path for folder in folders for path in (repository.path / folder).rglob("*")]
    return {
        path: path.read_bytes()
        for path in files
        if path.is_file() and "checkpoints" not in path.parts
    }


def assert_one_line(result: subprocess.CompletedProcess[str], *expected: str) -> None:
    assert result.returncode == 1, result.stdout + result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, result.stderr
    assert all(text in errors[0] for text in expected), errors[0]
    assert "Traceback" not in result.stderr
    print(errors[0])


def run_mounted(
    repository: Repository, prepare: str, stage: str
) -> subprocess.CompletedProcess[str]:
    command = f"{prepare} && exec {sys.executable} -m stages.{stage}"
    return repository.run(*UNSHARE, command)


def full(folder: str, kilobytes: int, keep: str = "") -> str:
    """Mount a small disk there, with what `keep` names from the folder copied into it."""
    copy = f"&& cp -r .kept/{keep} {folder}" if keep else ""
    return f"cp -r {folder} .kept; mount -t tmpfs -o size={kilobytes}k tmpfs {folder} {copy}"


@needs_mounts
@pytest.mark.parametrize(
    ("stage", "prepare"),
    [
        ("fetch", full("data", 100)),
        ("preprocess", full("data", 2000, "cifar-10-python.tar.gz")),
        ("fetch_weights", full("data", 1000)),
        ("train simple_cnn", full("models", 300)),
        ("train simple_cnn", full("metrics", 0).replace("size=0k", "nr_inodes=3")),
        ("evaluate simple_cnn", full("metrics", 4) + " && head -c 4096 /dev/zero >metrics/fill"),
        ("compare", full("metrics", 120, "curves")),
    ],
)
def test_a_full_disk_ends_in_one_line(clone: Repository, stage: str, prepare: str) -> None:
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
def test_a_read_only_folder_ends_in_one_line(clone: Repository, stage: str, folder: str) -> None:
    before = outputs(clone)
    prepare = f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}"
    assert_one_line(run_mounted(clone, prepare, stage), "Read-only file system", folder)
    assert outputs(clone) == before


@needs_mounts
def test_a_training_that_filled_the_disk_resumes(clone: Repository) -> None:
    clone.set_params(epochs=3)
    # Room for two checkpoints of half a megabyte each, but not for the model beside them.
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


def replace(path: Path, content: bytes) -> None:
    path.unlink()  # it may be linked to DVC's cache
    path.write_bytes(content)


def save(path: Path, array: np.ndarray) -> None:
    path.unlink()
    np.save(path, array)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "no pictures": lambda folder: shutil.rmtree(folder),
    "empty file": lambda folder: replace(folder / "x.npy", b""),
    "truncated": lambda folder: replace(folder / "x.npy", (folder / "x.npy").read_bytes()[:-1000]),
    "no array": lambda folder: replace(folder / "x.npy", b"hello" * 100),
    "pickled": lambda folder: save(folder / "x.npy", np.array([{}], object)),
    "other size": lambda folder: save(folder / "x.npy", np.zeros((40, 28, 28, 1), np.float32)),
    "other type": lambda folder: save(folder / "x.npy", np.zeros((40, 32, 32, 3), np.uint8)),
    "no rows": lambda folder: save(folder / "x.npy", np.zeros((0, 32, 32, 3), np.float32)),
    "a row less": lambda folder: save(folder / "x.npy", np.zeros((39, 32, 32, 3), np.float32)),
    "labels not one-hot": lambda folder: save(folder / "y.npy", np.zeros(40, np.float32)),
}


def test_damaged_arrays_end_in_one_line(clone: Repository) -> None:
    # In one process for all of them: importing TensorFlow takes longer than the rest.
    from stages.support.arrays import Split
    from stages.support.errors import StageError

    whole = clone.path / "data/test"
    for name, damage in DAMAGE.items():
        folder = clone.path / "damaged"
        shutil.copytree(whole, folder)
        damage(folder)
        with pytest.raises(StageError) as caught:
            Split(folder)
        assert f"error: {folder}" in str(caught.value), name
        assert "; run `dvc repro --force preprocess`" in str(caught.value), name
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_the_stages_refuse_damaged_arrays(clone: Repository, stage: str) -> None:
    folder = "validation" if stage == "train" else "test"
    save(clone.path / f"data/{folder}/x.npy", np.zeros((40, 28, 28, 1), np.float32))
    before = outputs(clone)
    result = clone.run(sys.executable, "-m", f"stages.{stage}", "simple_cnn")
    assert_one_line(result, f"data/{folder}/x.npy: holds float32 (40, 28, 28, 1), not")
    assert outputs(clone) == before


BREAK_MODELS = """
import pathlib, shutil, sys, zipfile
import keras
from stages.support import model_file

def attempt(name):
    try:
        model_file.load(pathlib.Path("models/simple_cnn.keras"))
        print("LOADED", name)
    except SystemExit as error:
        print(error.code)

path = pathlib.Path("models/simple_cnn.keras")
whole = path.read_bytes()
def write(content):
    path.unlink()
    path.write_bytes(content)

for name, content in {"empty": b"", "truncated": whole[: len(whole) // 2], "text": b"hello",
                      "a bit": whole[:30000] + bytes([whole[30000] ^ 1]) + whole[30001:]}.items():
    write(content)
    attempt(name)

other = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
path.unlink()
other.save(path)
attempt("another network")

code = keras.layers.Lambda(lambda x: x + len(__import__("os").listdir(".")))
layers = [keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(10), code]
lambdas = keras.Sequential(layers)
path.unlink()
lambdas.save(path)
attempt("code in a layer")

# The weights of another network under this one's configuration.
write(whole)
shutil.copy("models/complex_cnn.keras", "other.keras")
with zipfile.ZipFile("models/simple_cnn.keras") as one, zipfile.ZipFile("other.keras") as two:
    parts = {name: one.read(name) for name in one.namelist()}
    parts["model.weights.h5"] = two.read("model.weights.h5")
path.unlink()
with zipfile.ZipFile(path, "w") as mixed:
    for name, content in parts.items():
        mixed.writestr(name, content)
attempt("weights of another network")
"""


def test_damaged_and_foreign_models_end_in_one_line(clone: Repository) -> None:
    output = clone.check(sys.executable, "-c", BREAK_MODELS)
    lines = output.splitlines()
    assert len(lines) == 7
    for line in lines:
        assert line.startswith("error: models/simple_cnn.keras: "), line
        assert line.endswith("; run `dvc repro --force train@simple_cnn`")


def test_weights_of_another_network_do_not_start_a_training(clone: Repository) -> None:
    (clone.path / "stages/architectures/resnet50_finetune.py").write_text(
        (Path(__file__).parent.parent / "stages/architectures/resnet50_finetune.py").read_text()
    )
    before = outputs(clone)
    file = clone.path / "data/weights/imagenet/resnet50_notop.weights.h5"
    replace(file, b"no weights")
    result = clone.run(sys.executable, "-m", "stages.train", "resnet50_finetune")
    assert_one_line(result, "resnet50_finetune: the network could not be built")
    replace(file, before[file])
    assert outputs(clone) == before
