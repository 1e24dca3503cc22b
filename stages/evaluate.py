"""Evaluate one model on the test pictures: `python -m stages.evaluate MODEL`.

Reads models/MODEL.keras and data/test/. Writes data/evaluations/MODEL/ for the comparison, with
`probabilities.npy`, (N, 10) float32, and `metrics.json`, and the same metrics to
metrics/MODEL.json, where DVC's metrics commands and Git find them.
"""

import json
import shutil
import sys
from typing import Any

import keras
import numpy as np

from stages.support import arrays, model_file, params, paths
from stages.support.archive import CLASSES
from stages.support.errors import StageError, one_line_errors
from stages.support.files import replacing

BATCH_SIZE = 250  # pictures at once; changes nothing but speed and the last bit of the loss


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Count pictures by (true class, predicted class), given (N,) integers each: (10, 10) int."""
    pairs = truth * len(CLASSES) + predicted
    return np.bincount(pairs, minlength=len(CLASSES) ** 2).reshape(len(CLASSES), len(CLASSES))


def evaluate(model: keras.Model, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """Probabilities (N, 10) float32 and metrics of a model on pictures x and one-hot labels y."""
    loss, accuracy = model.evaluate(x, y, batch_size=BATCH_SIZE, verbose=0)
    probabilities = model.predict(x, batch_size=BATCH_SIZE, verbose=0)
    matrix = confusion_matrix(y.argmax(axis=1), probabilities.argmax(axis=1))
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
    model = model_file.load(paths.MODELS / f"{name}.keras")
    model.compile(loss="categorical_crossentropy", metrics=["accuracy"])
    x, y = arrays.load(paths.TEST)
    probabilities, metrics = evaluate(model, x, y)

    written = paths.METRICS / f"{name}.json"
    with replacing(paths.EVALUATIONS / name) as folder, replacing(written) as partial:
        folder.mkdir()
        np.save(folder / "probabilities.npy", probabilities)
        partial.write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
        shutil.copyfile(partial, folder / "metrics.json")
    print(f"{name}: test accuracy {metrics['accuracy']:.2%}, test loss {metrics['loss']:.4f}")
    print(f"wrote {written}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise StageError("usage: python -m stages.evaluate MODEL")
    main(sys.argv[1])
