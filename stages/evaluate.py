"""Evaluate one model on the test pictures: `python -m stages.evaluate MODEL`.

Reads models/MODEL.keras and data/test/. Writes

- metrics/MODEL.json: test loss and accuracy, where DVC's metrics commands and Git find them
- data/evaluations/MODEL/, for the comparison: `probabilities.npy`, (N, 10) float32, and
  `evaluation.json` with the same metrics and what the model is
- metrics/predictions/MODEL.csv and metrics/classes/MODEL.csv, for DVC's plots
"""

import csv
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import numpy as np

from stages.support import model_file, params, paths, statistics
from stages.support.archive import CLASSES
from stages.support.arrays import Split
from stages.support.batches import Batches
from stages.support.errors import StageError, one_line_errors
from stages.support.files import only_one, replacing, say_reading, say_wrote, sha256, write_json
from stages.support.quietly import keras

BATCH_SIZE = 250  # pictures at once; changes nothing but speed and the last bit of the loss


def evaluate(model: keras.Model, split: Split) -> tuple[np.ndarray, dict[str, float]]:
    """Probabilities (N, 10) float32 and metrics of a compiled model on the pictures of a split."""
    batches = Batches(split, BATCH_SIZE).source()
    loss, accuracy = model.evaluate(batches, verbose=0)
    probabilities: np.ndarray = model.predict(batches, verbose=0)
    return probabilities, {"accuracy": float(accuracy), "loss": float(loss)}


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a table for DVC's plots."""
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


@one_line_errors
def main(name: str) -> None:
    params.load().model(name)
    only_one(f"evaluate@{name}")
    path = paths.MODELS / f"{name}.keras"
    say_reading(path, paths.TEST)
    model, split = model_file.load(path), Split(paths.TEST)
    model.compile(loss="categorical_crossentropy", metrics=["accuracy"])
    probabilities, metrics = evaluate(model, split)
    labels, predicted = split.labels(), probabilities.argmax(axis=1)
    matrix = statistics.confusion_matrix(labels, predicted, len(CLASSES))
    print(f"{name}: test accuracy {metrics['accuracy']:.2%}, test loss {metrics['loss']:.4f}")

    about = {
        "parameters": int(model.count_params()),
        "sha256": sha256(path),
        "software": {x: version(x) for x in ("keras", keras.backend.backend(), "numpy")},
    }
    written = paths.METRICS / f"{name}.json"
    with replacing(paths.EVALUATIONS / name) as folder:
        folder.mkdir()
        np.save(folder / "probabilities.npy", probabilities)
        write_json(folder / "evaluation.json", {**metrics, **about})
        write_csv(
            paths.PREDICTIONS / f"{name}.csv",
            ["true", "predicted"],
            ([CLASSES[label] for label in pair] for pair in zip(labels, predicted, strict=True)),
        )
        write_csv(
            paths.CLASS_ACCURACIES / f"{name}.csv",
            ["class", "accuracy"],
            zip(CLASSES, statistics.class_accuracies(matrix), strict=True),
        )
        write_json(written, {name: metrics})
    say_wrote(written, paths.EVALUATIONS / name)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise StageError("usage: python -m stages.evaluate MODEL")
    main(sys.argv[1])
