"""Evaluation: metrics are those of Keras; a diverged model leaves earlier metrics untouched."""

import csv
import json
import sys

import numpy as np
import pytest

from stages.common.quiet_keras import keras
from stages.evaluate import compute_metrics
from stages.reporting.statistics import confusion_matrix
from stages.sources.cifar import CLASSES
from tests.faults import assert_one_line, outputs
from tests.repository import Repository


@pytest.mark.parametrize("name", ["simple_cnn", "resnet50_finetune"])
def test_metrics_are_those_of_keras(trained: Repository, name: str) -> None:
    x, y = (np.load(trained.path / f"data/test/{array}.npy") for array in "xy")
    model = keras.models.load_model(trained.path / f"models/{name}.keras")
    y = keras.utils.to_categorical(y, len(CLASSES))
    expected = model.evaluate(x.astype(np.float32) / 255, y, verbose=0, return_dict=True)
    metrics = json.loads((trained.path / f"metrics/{name}.json").read_text())
    assert metrics == pytest.approx(expected, rel=1e-6, abs=1e-6)


def metrics_of_two_classes(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    matrix = confusion_matrix(labels, probabilities.argmax(axis=1), 2)
    return compute_metrics(probabilities, labels, matrix)


def test_loss_of_a_class_with_probability_zero_is_finite() -> None:
    probabilities, labels = np.array([[1, 0], [0.25, 0.75]], np.float32), np.array([1, 1])
    metrics = metrics_of_two_classes(probabilities, labels)
    assert metrics["loss"] == pytest.approx((87.34 - np.log(0.75)) / 2, abs=0.01)
    assert metrics["accuracy"] == 0.5


def test_balanced_accuracy_is_a_metric_where_classes_are_unequal() -> None:
    cat, dog = np.eye(2, dtype=np.float32)
    for cats, metrics in ((90, {"accuracy"}), (91, {"accuracy", "balanced_accuracy"})):
        labels = np.repeat([0, 1], [cats, 60])
        computed = metrics_of_two_classes(np.stack([cat] * (cats + 30) + [dog] * 30), labels)
        assert computed.keys() - {"loss"} == metrics
    assert computed["balanced_accuracy"] == (1 + 1 / 2) / 2


def test_probabilities_and_plots_agree_with_the_metrics(trained: Repository) -> None:
    metrics = json.loads((trained.path / "metrics/fast94.json").read_text())
    labels = np.load(trained.path / "data/test/y.npy")
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


def test_diverged_model_ends_in_one_line_and_keeps_earlier_metrics(clone: Repository) -> None:
    path = clone.path / "models/simple_cnn.keras"
    model = keras.models.load_model(path)
    model.set_weights([weights * np.nan for weights in model.get_weights()])
    path.unlink()
    model.save(path)
    before = outputs(clone)
    result = clone.run(sys.executable, "-m", "stages.evaluate", "simple_cnn")
    remedy = "lower models.simple_cnn.learning_rate in params.yaml, then run `dvc repro`"
    assert_one_line(result, f"error: {path.relative_to(clone.path)}: predictions are", remedy)
    assert outputs(clone) == before
