"""Evaluation: metrics are those of Keras; a damaged model leaves earlier metrics untouched."""

import csv
import json
import sys

import numpy as np

from stages.dataset.classes import CLASSES
from tests.repository import Repository, run_keras_script

EVALUATE_WITH_KERAS = """
import json, keras, numpy
model = keras.models.load_model("models/complex_cnn.keras")
x, y = numpy.load("data/test/x.npy"), numpy.load("data/test/y.npy")
print(json.dumps(model.evaluate(x, y, verbose=0)))
"""


def test_metrics_are_those_of_keras(trained: Repository) -> None:
    loss, accuracy = run_keras_script(EVALUATE_WITH_KERAS, trained.path)
    metrics = json.loads((trained.path / "metrics/complex_cnn.json").read_text())["complex_cnn"]
    assert abs(metrics["loss"] - loss) < 1e-6
    assert abs(metrics["accuracy"] - accuracy) < 1e-6


def test_probabilities_and_plots_agree_with_the_metrics(trained: Repository) -> None:
    metrics = json.loads((trained.path / "metrics/complex_cnn.json").read_text())["complex_cnn"]
    labels = np.load(trained.path / "data/test/y.npy").argmax(axis=1)
    probabilities = np.load(trained.path / "data/evaluations/complex_cnn/probabilities.npy")
    correct = probabilities.argmax(axis=1) == labels
    assert abs(correct.mean() - metrics["accuracy"]) < 1e-6
    with (trained.path / "metrics/predictions/complex_cnn.csv").open() as file:
        predictions = list(csv.DictReader(file))
    assert [row["true"] == row["predicted"] for row in predictions] == correct.tolist()
    with (trained.path / "metrics/classes/complex_cnn.csv").open() as file:
        for label, row in enumerate(csv.DictReader(file)):
            assert row["class"] == CLASSES[label]
            assert abs(float(row["accuracy"]) - correct[labels == label].mean()) < 1e-12


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
