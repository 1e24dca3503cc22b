"""Training: the same bytes each time, whatever interrupts it; evaluation: Keras' own numbers."""

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import yaml

from stages.support.archive import CLASSES
from tests.conftest import Repository, training_results, wait_until

TRAIN = [sys.executable, "-m", "stages.train", "simple_cnn"]
RESULTS = training_results("simple_cnn")


def test_a_killed_training_resumes_to_the_same_bytes(clone: Repository, tmp_path: Path) -> None:
    clone.set_params(epochs=6)
    clone.check(*TRAIN)
    uninterrupted = clone.digests(RESULTS)

    checkpoints = clone.path / "models/checkpoints/simple_cnn"
    process = clone.start(*TRAIN, log=tmp_path / "log")
    wait_until((checkpoints / "epoch-000002.npz").exists, process, tmp_path / "log")
    process.kill()
    process.wait()

    # The newest checkpoint is damaged too: the one before it serves.
    newest = sorted(checkpoints.glob("epoch-*.npz"))[-1]
    newest.write_bytes(newest.read_bytes()[:-1000])
    output = clone.check(*TRAIN)
    assert "set aside damaged checkpoint" in output
    assert "resuming simple_cnn after epoch" in output
    assert clone.digests(RESULTS) == uninterrupted
    assert not checkpoints.exists()


def test_forcing_a_training_changes_nothing(clone: Repository) -> None:
    timing = clone.digests(["metrics/timings/simple_cnn.json"])
    assert clone.stages_run("repro", "--force", "--single-item", "train@simple_cnn") == [
        "train@simple_cnn"
    ]
    assert clone.changed_stages() == set()
    assert clone.digests(["metrics/timings/simple_cnn.json"]) == timing


def test_a_training_needs_a_commit(clone: Repository) -> None:
    shutil.rmtree(clone.path / ".git")
    clone.check("git", "init", "--quiet")
    result = clone.run(*TRAIN)
    assert result.returncode == 1
    assert result.stderr.startswith("error: metrics/curves/simple_cnn: DVCLive cannot tell the Git")
    assert result.stderr.count("\n") == 1


def test_metrics_are_those_of_keras(trained: Repository) -> None:
    script = (
        "import json, keras, numpy\n"
        "model = keras.models.load_model('models/complex_cnn.keras')\n"
        "x, y = numpy.load('data/test/x.npy'), numpy.load('data/test/y.npy')\n"
        "print(json.dumps(model.evaluate(x, y, verbose=0)))\n"
    )
    loss, accuracy = json.loads(trained.check(sys.executable, "-c", script).splitlines()[-1])
    metrics = json.loads((trained.path / "metrics/complex_cnn.json").read_text())["complex_cnn"]
    assert abs(metrics["loss"] - loss) < 1e-6
    assert abs(metrics["accuracy"] - accuracy) < 1e-6

    labels = np.load(trained.path / "data/test/y.npy").argmax(axis=1)
    probabilities = np.load(trained.path / "data/evaluations/complex_cnn/probabilities.npy")
    right = probabilities.argmax(axis=1) == labels
    assert abs(right.mean() - metrics["accuracy"]) < 1e-6
    with (trained.path / "metrics/predictions/complex_cnn.csv").open() as file:
        predictions = list(csv.DictReader(file))
    assert [row["true"] == row["predicted"] for row in predictions] == right.tolist()
    with (trained.path / "metrics/classes/complex_cnn.csv").open() as file:
        for label, row in enumerate(csv.DictReader(file)):
            assert row["class"] == CLASSES[label]
            assert abs(float(row["accuracy"]) - right[labels == label].mean()) < 1e-12


def test_prepared_arrays_are_the_notebooks(trained: Repository) -> None:
    shapes = {}
    for split in ("train", "validation", "test"):
        x, y = (np.load(trained.path / f"data/{split}/{name}.npy") for name in "xy")
        assert x.dtype == y.dtype == np.float32
        assert x.min() >= 0
        assert 0.5 < x.max() <= 1
        assert (y.sum(axis=1) == 1).all()
        assert set(np.unique(y)) == {0, 1}
        shapes[split] = (x.shape, y.shape)
    # 5 batches of 40 pictures, the last 10 % of which validate.
    assert shapes["train"] == ((180, 32, 32, 3), (180, 10))
    assert shapes["validation"] == ((20, 32, 32, 3), (20, 10))
    assert shapes["test"] == ((40, 32, 32, 3), (40, 10))


def test_simple_cnn_learns_the_sample(clone: Repository) -> None:
    clone.set_params(sample__pictures_per_batch=320, epochs=2, batch_size=128)
    for command in ("fetch", "preprocess", "train simple_cnn", "evaluate simple_cnn"):
        result = clone.run(sys.executable, "-m", *f"stages.{command}".split())
        assert result.returncode == 0, result.stderr
        assert result.stderr == ""  # nothing of TensorFlow's start
        assert result.stdout.splitlines()[-1].startswith("wrote ")
    metrics = json.loads((clone.path / "metrics/simple_cnn.json").read_text())["simple_cnn"]
    assert metrics["accuracy"] > 0.4  # chance is 0.1
    assert metrics["accuracy"] < 1


def test_only_routine_lines_are_silenced(trained: Repository) -> None:
    script = (
        "import os\n"
        "from stages.support.quietly import without_routine_lines\n"
        "with without_routine_lines():\n"
        "    os.write(2, b'I0 port.cc:153] oneDNN custom operations are on. You may see\\n')\n"
        "    os.write(2, b'W0 allocator.cc: Allocation of 99 GB exceeds free memory\\n')\n"
    )
    result = trained.run(sys.executable, "-c", script, KERAS_BACKEND="numpy")
    assert result.stderr == "W0 allocator.cc: Allocation of 99 GB exceeds free memory\n"


def test_a_damaged_model_file_ends_in_one_line_and_keeps_old_metrics(clone: Repository) -> None:
    model: Path = clone.path / "models/simple_cnn.keras"
    content = model.read_bytes()
    model.unlink()
    model.write_bytes(content[: len(content) // 2])
    metrics = (clone.path / "metrics/simple_cnn.json").read_bytes()
    result = clone.run(sys.executable, "-m", "stages.evaluate", "simple_cnn")
    assert result.returncode == 1
    assert "error: models/simple_cnn.keras: not a readable model" in result.stderr
    assert "Traceback" not in result.stderr
    assert (clone.path / "metrics/simple_cnn.json").read_bytes() == metrics


def test_checkpoints_belong_to_the_code_that_dvc_watches(trained: Repository) -> None:
    script = "from stages.train import code; print(*code('simple_cnn'), sep='\\n')"
    output = trained.check(sys.executable, "-c", script)
    files = {str(Path(trained.path, line).relative_to(trained.path)) for line in output.split()}
    stage = yaml.safe_load((trained.path / "dvc.yaml").read_text())["stages"]["train"]["do"]
    deps = {item.replace("${key}", "simple_cnn") for item in stage["deps"]}
    assert files == {item for item in deps if item.startswith("stages/")}
