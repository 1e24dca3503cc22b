"""Training: equal bytes each time, also after interruptions; its length; batch normalization."""

import json
import shutil
import sys
from pathlib import Path

from tests.params_edits import PARAMS
from tests.repository import Repository, run_keras_script, training_results, wait_until

TRAIN = [sys.executable, "-m", "stages.train", "simple_cnn"]
RESULTS = training_results("simple_cnn")
CHECKPOINTS = "models/checkpoints/simple_cnn"
RANDOM_WEIGHTS = {"architecture": "simple_cnn", "weights": "random"}
# Every training parameter has an effect.
TRAINING_PARAMS = {
    "validation_share": 0.5,
    "min_validation_images": 12,
    "min_batches": 9,
    "min_batch_size": 24,
    "min_steps": 80,
    "fused_kernels": True,
    "optimizer": "muon",
    "learning_rate": 0.02,
    "muon_lr_multiplier": 2.0,
    "muon_momentum": 0.5,
    "muon_bias_lr_multiplier": 4.0,
    "weight_decay": 0.01,
    "lr_schedule": "cosine",
    "warmup_fraction": 0.3,
    "label_smoothing": 0.1,
    "ema_decay": 0.5,
    "flip": "alternating",
    "translate": 3,
    "frozen_batch_norm_epochs": 3,
    "recompute_batch_norm_below": 100,
    "tta_views": 6,
}
NORMALIZED_NETWORK = """import keras
from keras import layers


def build() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(4, 3, strides=4),
            layers.BatchNormalization(),
            layers.Activation("relu"),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(10, activation="softmax"),
        ]
    )
"""
MOVED_VARIABLES = """
import json, keras
from pathlib import Path
moved = {}
for file in Path(".").glob("*.keras"):
    convolution, normalization, *_ = keras.models.load_model(file).layers
    variables = {
        "moving mean": normalization.moving_mean,
        "offset": normalization.beta,
        "bias": convolution.bias,
    }
    moved[file.stem] = {name: float(abs(x.numpy()).max()) for name, x in variables.items()}
print(json.dumps(moved))
"""


# In one process, in place of three that import TensorFlow each.
TRAIN_AND_RESUME = """
import json, sys, zipfile
from pathlib import Path
from stages import train
from stages.common.hashing import sha256
from stages.common.quiet_keras import keras

def fail(*arguments):
    raise SystemExit("killed before the model is saved")

file, save, digests = Path("models/simple_cnn.keras"), train.model_file.save, []
for function in (save, fail, save):
    keras.backend.clear_session()  # names of layers start at 1 again
    train.model_file.save = function
    try:
        train.main("simple_cnn")
        digests.append(sha256(file))
    except SystemExit as error:
        assert function is fail, error
layers = json.loads(zipfile.ZipFile(file).read("config.json"))["config"]["layers"]
trainable = [layer["config"].get("trainable", True) for layer in layers]
print(json.dumps({"digests": digests, "trainable": trainable}))
"""


def kill_after_epoch(repository: Repository, epoch: int, log: Path) -> None:
    """Start training and kill it once the checkpoint of an epoch exists."""
    process = repository.start(*TRAIN, log=log)
    checkpoint = repository.path / CHECKPOINTS / f"epoch-{epoch:06d}.npz"
    wait_until(checkpoint.exists, process, log)
    process.kill()
    process.wait()


def test_killed_training_resumes_to_the_same_bytes(clone: Repository, tmp_path: Path) -> None:
    clone.apply_params("epochs=6")
    clone.check(*TRAIN)
    uninterrupted = clone.digests(RESULTS)

    kill_after_epoch(clone, 2, tmp_path / "log")
    # The newest checkpoint is damaged as well, so training resumes from the one before it.
    newest = sorted((clone.path / CHECKPOINTS).glob("epoch-*.npz"))[-1]
    newest.write_bytes(newest.read_bytes()[:-1000])
    output = clone.check(*TRAIN)
    assert "set aside damaged checkpoint" in output
    assert "resuming simple_cnn after epoch" in output
    assert clone.digests(RESULTS) == uninterrupted
    assert not (clone.path / CHECKPOINTS).exists()


def test_training_with_every_parameter_set_resumes_to_the_same_bytes(
    clone: Repository, tmp_path: Path
) -> None:
    (clone.path / "stages/architectures/simple_cnn.py").write_text(NORMALIZED_NETWORK)
    entry = json.dumps(RANDOM_WEIGHTS | TRAINING_PARAMS)
    clone.apply_params("epochs=8", f"models.simple_cnn={entry}")
    clone.check(*TRAIN)
    uninterrupted = clone.digests(RESULTS)
    assert clone.epochs_recorded("simple_cnn") == 10  # of 8 steps

    for epoch in (1, 5):  # while batch normalization is frozen, and after
        kill_after_epoch(clone, epoch, tmp_path / "log")
    assert "resuming simple_cnn after epoch" in clone.check(*TRAIN)
    assert clone.digests(RESULTS) == uninterrupted


def test_batch_normalization_is_frozen_or_its_averages_are_recomputed(clone: Repository) -> None:
    (clone.path / "stages/architectures/simple_cnn.py").write_text(NORMALIZED_NETWORK)
    runs = {"one epoch": (1, "tensorflow"), "both": (2, "tensorflow"), "both, JAX": (2, "jax")}
    for name, (frozen_epochs, backend) in runs.items():
        entry = {"learning_rate": 0.1, "frozen_batch_norm_epochs": frozen_epochs}
        entry["recompute_batch_norm_below"] = 9  # there are 8 steps
        clone.apply_params("epochs=2", f"models.simple_cnn={json.dumps(RANDOM_WEIGHTS | entry)}")
        clone.check(*TRAIN, KERAS_BACKEND=backend)
        (clone.path / "models/simple_cnn.keras").rename(clone.path / f"{name}.keras")
    moved = run_keras_script(MOVED_VARIABLES, clone.path)
    for name in ("both", "both, JAX"):
        assert moved[name]["moving mean"] == moved[name]["offset"] == 0
        assert moved[name]["bias"] > 0
    assert min(moved["one epoch"].values()) > 0
    assert moved["one epoch"]["moving mean"] > 1  # four steps alone lead to 0.16


def test_training_killed_before_its_model_is_saved_resumes_to_the_same_bytes(
    clone: Repository,
) -> None:
    (clone.path / "stages/architectures/simple_cnn.py").write_text(NORMALIZED_NETWORK)
    entry = {"learning_rate": 0.1, "frozen_batch_norm_epochs": 2}
    entry["ema_decay"] = 0.5  # which replaces all weights that are trainable at the end
    clone.apply_params("epochs=2", f"models.simple_cnn={json.dumps(RANDOM_WEIGHTS | entry)}")
    result = run_keras_script(TRAIN_AND_RESUME, clone.path)
    uninterrupted, resumed = result["digests"]
    assert resumed == uninterrupted
    assert all(result["trainable"])


def test_diverged_training_ends_in_one_line_without_a_checkpoint_of_that_epoch(
    clone: Repository,
) -> None:
    entry = {"dropout": 0.5, "optimizer": "sgd", "learning_rate": 10.0, "weight_decay": 1.0}
    clone.apply_params("epochs=6", f"models.simple_cnn={json.dumps(RANDOM_WEIGHTS | entry)}")
    result = clone.run(*TRAIN)
    assert result.returncode == 1
    epoch = result.stdout.count("Epoch ")
    assert 1 < epoch < 6
    assert result.stderr == (
        f"error: simple_cnn: training diverged in epoch {epoch}: loss is not finite; lower "
        "models.simple_cnn.learning_rate in params.yaml, which is 10\n"
    )
    newest = max((clone.path / CHECKPOINTS).iterdir())
    assert newest.name == f"epoch-{epoch - 1:06d}.npz"
    assert clone.epochs_recorded("simple_cnn") == epoch - 1
    curves = clone.path / "metrics/curves/simple_cnn"
    written = "".join(file.read_text() for file in curves.rglob("*.*"))
    assert "nan" not in written.lower()
    assert "inf" not in written.lower()


def test_forced_training_changes_nothing(clone: Repository) -> None:
    stages = clone.stages_run("repro", "--force", "--single-item", "train@simple_cnn")
    assert stages == ["train@simple_cnn"]
    assert clone.changed_stages() == set()
    assert clone.check("git", "status", "--porcelain") == ""  # provenance and times included


def test_training_without_a_commit_ends_in_one_line(clone: Repository) -> None:
    shutil.rmtree(clone.path / ".git")
    clone.check("git", "init", "--quiet")
    result = clone.run(*TRAIN)
    assert result.returncode == 1
    message = "error: metrics/curves/simple_cnn: DVCLive cannot read the Git commit: "
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1


def test_simple_cnn_learns_the_sample(clone: Repository) -> None:
    clone.apply_params("sample.images_per_file=320", "epochs=2", "batch_size=128")
    for command in ("fetch", "preprocess", "train simple_cnn", "evaluate simple_cnn"):
        result = clone.run(sys.executable, "-m", *f"stages.{command}".split())
        assert result.returncode == 0, result.stderr
        assert result.stderr == ""  # no start-up messages of TensorFlow
        assert result.stdout.splitlines()[-1].startswith("wrote ")
    metrics = json.loads((clone.path / "metrics/simple_cnn.json").read_text())
    assert metrics["accuracy"] > 0.4  # chance is 0.1
    assert metrics["accuracy"] < 1


def test_invalid_entry_of_another_model_is_reported_before_training(clone: Repository) -> None:
    clone.apply_params("models.fast94.dropout=1.0")
    result = clone.run(*TRAIN)  # of simple_cnn
    assert result.returncode == 1
    message = "error: params.yaml: models.fast94.dropout: 1.0: Extra inputs are not permitted"
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1


def test_training_says_what_it_does_and_what_is_too_few(first_run: tuple[Repository, str]) -> None:
    _, output = first_run
    line = "resnet50_finetune, model 2 of 3: 180 images, batches of 50, 1 epoch, 4 steps\n"
    assert f"{line}NOTICE: only 4 steps: lower batch_size, or raise epochs\n" in output
    assert "whose accuracy says little" not in output  # 20 validation images


def test_frozen_network_runs_in_every_epoch_of_augmented_few_images(clone: Repository) -> None:
    entry = PARAMS["models"]["resnet50_features"] | {"flip": "random", "min_steps": 30}
    entry |= {"min_validation_images": 5, "min_batches": 20}
    clone.apply_params(f"models.resnet50_features={json.dumps(entry)}")
    output = clone.check(*TRAIN[:-1], "resnet50_features")
    line = "resnet50_features, model 4 of 4: 195 images, batches of 16, 3 epochs, 39 steps\n"
    assert f"{line}NOTICE: only 5 validation images, whose accuracy says little: " in output
    assert "computing the features" not in output
    assert clone.epochs_recorded("resnet50_features") == 3
