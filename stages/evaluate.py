"""Evaluate one model on the test pictures: `python -m stages.evaluate MODEL`.

Reads models/MODEL.keras and data/test/. Writes data/evaluations/MODEL/ for the comparison, with
`probabilities.npy`, (N, 10) float32, and `metrics.json`, and the same metrics to
metrics/MODEL.json, where DVC's metrics commands and Git find them.
"""

import sys
from typing import Any

import keras
import numpy as np

from stages.support import model_file, params, paths
from stages.support.archive import CLASSES
from stages.support.arrays import Split
from stages.support.batches import Batches
from stages.support.errors import StageError, one_line_errors
from stages.support.files import only_one, replacing, write_json

BATCH_SIZE = 250  # pictures at once; changes nothing but speed and the last bit of the loss


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Count pictures by (true class, predicted class), given (N,) integers each: (10, 10) int."""
    pairs = truth * len(CLASSES) + predicted
    return np.bincount(pairs, minlength=len(CLASSES) ** 2).reshape(len(CLASSES), len(CLASSES))


def evaluate(model: keras.Model, split: Split) -> tuple[np.ndarray, dict[str, Any]]:
    """Probabilities (N, 10) float32 and metrics of a compiled model on the pictures of a split."""
    batches = Batches(split, BATCH_SIZE).source()
    loss, accuracy = model.evaluate(batches, verbose=0)
    probabilities = model.predict(batches, verbose=0)
    matrix = confusion_matrix(split.labels(), probabilities.argmax(axis=1))
    # A class without pictures, possible in a small generated set, counts as 0.
    per_class = matrix.diagonal() / np.maximum(matrix.sum(axis=1), 1)
    metrics = {
        "loss": float(loss),
        "accuracy": float(accuracy),
        "parameters": int(model.count_params()),
        # Lists, which `dvc metrics` and `dvc exp show` leave out of their tables.
        "per_class_accuracy": [
            {"class": name, "accuracy": float(value)}
            for name, value in zip(CLASSES, per_class, strict=True)
        ],
        "confusion_matrix": matrix.tolist(),
    }
    return probabilities, metrics


@one_line_errors
def main(name: str) -> None:
    params.load().model(name)
    only_one(f"evaluate@{name}")
    model = model_file.load(paths.MODELS / f"{name}.keras")
    model.compile(loss="categorical_crossentropy", metrics=["accuracy"])
    probabilities, metrics = evaluate(model, Split(paths.TEST))

    written = paths.METRICS / f"{name}.json"
    with replacing(paths.EVALUATIONS / name) as folder:
        folder.mkdir()
        np.save(folder / "probabilities.npy", probabilities)
        write_json(folder / "metrics.json", metrics)
        write_json(written, metrics)
    print(f"{name}: test accuracy {metrics['accuracy']:.2%}, test loss {metrics['loss']:.4f}")
    print(f"wrote {written}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise StageError("usage: python -m stages.evaluate MODEL")
    main(sys.argv[1])
