"""Evaluation: metrics are those of Keras; a damaged model leaves earlier metrics untouched."""

import csv
import json
import shutil
import sys

import numpy as np
import pytest

from stages.evaluate import balanced_accuracy
from stages.sources.archive import CLASSES
from tests.faults import assert_one_line, outputs
from tests.repository import Repository, run_keras_script

EVALUATE_WITH_KERAS = """
import json, keras, numpy
model = keras.models.load_model("models/simple_cnn.keras")
x, y = numpy.load("data/test/x.npy"), numpy.load("data/test/y.npy")
print(json.dumps(model.evaluate(x, y, verbose=0)))
"""


def test_metrics_are_those_of_keras(trained: Repository) -> None:
    loss, accuracy = run_keras_script(EVALUATE_WITH_KERAS, trained.path)
    metrics = json.loads((trained.path / "metrics/simple_cnn.json").read_text())
    assert abs(metrics["loss"] - loss) < 1e-6
    assert abs(metrics["accuracy"] - accuracy) < 1e-6


def test_probabilities_and_plots_agree_with_the_metrics(trained: Repository) -> None:
    metrics = json.loads((trained.path / "metrics/fast94.json").read_text())
    labels = np.load(trained.path / "data/test/y.npy").argmax(axis=1)
    probabilities = np.load(trained.path / "data/evaluations/fast94/probabilities.npy")
    correct = probabilities.argmax(axis=1) == labels
    assert abs(correct.mean() - metrics["accuracy"]) < 1e-6
    with (trained.path / "metrics/predictions/fast94.csv").open() as file:
        predictions = list(csv.DictReader(file))
    assert [row["true"] == row["predicted"] for row in predictions] == correct.tolist()
    with (trained.path / "metrics/classes/fast94.csv").open() as file:
        for label, row in enumerate(csv.DictReader(file)):
            assert row["class"] == CLASSES[label]
            assert abs(float(row["accuracy"]) - correct[labels == label].mean()) < 1e-12


def test_balanced_accuracy_is_a_metric_where_classes_are_unequal() -> None:
    assert balanced_accuracy(np.array([[90, 0], [10, 50]])) == {}  # 90 and 60 images
    unequal = balanced_accuracy(np.array([[90, 1], [30, 30]]))  # 91 and 60
    assert unequal == {"balanced_accuracy": pytest.approx((90 / 91 + 1 / 2) / 2)}


def test_damaged_model_file_ends_in_one_line_and_keeps_earlier_metrics(clone: Repository) -> None:
    model = clone.path / "models/simple_cnn.keras"
    content = model.read_bytes()
    model.unlink()  # it may be linked to DVC's cache
    model.write_bytes(content[: len(content) // 2])
    metrics = (clone.path / "metrics/simple_cnn.json").read_bytes()
    result = clone.run(sys.executable, "-m", "stages.evaluate", "simple_cnn")
    assert result.returncode == 1
    assert "error: models/simple_cnn.keras: not a readable model" in result.stderr
    assert "Traceback" not in result.stderr
    assert (clone.path / "metrics/simple_cnn.json").read_bytes() == metrics


EVALUATE_DIVERGED = """
from stages.common.quiet_keras import keras
from stages import evaluate

model = keras.models.load_model("models/simple_cnn.keras")
model.set_weights([weights * float("nan") for weights in model.get_weights()])
model.save("models/simple_cnn.keras")
evaluate.main("simple_cnn")
"""


def test_diverged_model_ends_in_one_line_and_keeps_earlier_metrics(clone: Repository) -> None:
    (clone.path / "models/simple_cnn.keras").unlink()
    shutil.copy2(clone.path / "models/fast94.keras", clone.path / "models/simple_cnn.keras")
    (clone.path / "models/simple_cnn.keras").chmod(0o644)
    before = outputs(clone)
    result = clone.run(sys.executable, "-c", EVALUATE_DIVERGED)
    assert_one_line(
        result,
        "error: models/simple_cnn.keras: test loss (nan) or predictions are not finite numbers",
        "lower models.simple_cnn.learning_rate in params.yaml, then run `dvc repro`",
    )
    after = outputs(clone)
    assert {path for path in after if before[path] != after[path]} == {
        clone.path / "models/simple_cnn.keras"
    }
