"""Evaluate one model on the test images: `python -m stages.evaluate MODEL`.

Reads models/MODEL.keras, data/test/ and data/description.json. Writes

- metrics/MODEL.json: test accuracy and loss, and balanced accuracy if the classes are of unequal
  size, for DVC's metrics commands and Git
- data/evaluations/MODEL/, for the comparison: `probabilities.npy`, (N, K) float32, and
  `evaluation.json` with the same metrics, the class names, the images' size, the
  model's size and checksum, and software versions
- metrics/predictions/MODEL.csv and metrics/classes/MODEL.csv, for DVC's plots
"""

from importlib.metadata import version

import numpy as np

from stages.common import command_line, params, paths
from stages.common.atomic import atomic_write, write_csv, write_json
from stages.common.console import print_inputs, print_outputs
from stages.common.errors import StageError, one_line_errors
from stages.common.hashing import sha256
from stages.common.locks import lock_stage
from stages.common.quiet_keras import keras
from stages.dataset import description
from stages.dataset.batch_loader import BatchLoader
from stages.dataset.splits import Split
from stages.reporting import statistics
from stages.training import model_file

BATCH_SIZE = 250  # affects only speed and the last bit of the loss


def evaluate(model: keras.Model, split: Split) -> tuple[np.ndarray, dict[str, float]]:
    """Probabilities (N, K) float32 and metrics of a compiled model on a split."""
    batches = BatchLoader(split, BATCH_SIZE).as_dataset()
    loss, accuracy = model.evaluate(batches, verbose=0)
    probabilities: np.ndarray = model.predict(batches, verbose=0)
    return probabilities, {"accuracy": float(accuracy), "loss": float(loss)}


def balanced_accuracy(matrix: np.ndarray) -> dict[str, float]:
    """The metric to add to the accuracy; none if classes are about equal, because so are the two.

    `matrix` is the confusion matrix, (K, K).
    """
    if not statistics.unequal(matrix.sum(axis=1)):
        return {}
    return {"balanced_accuracy": statistics.balanced_accuracy(matrix)}


@one_line_errors
def main(name: str) -> None:
    params.load().model(name)
    lock_stage(f"evaluate@{name}")
    path = paths.MODELS / f"{name}.keras"
    print_inputs(path, paths.TEST, paths.DESCRIPTION)
    model, split = model_file.load(path), Split(paths.TEST)
    model_file.check_shapes(model, path, split.image_shape, split.classes)
    classes = description.read_for(split).classes
    model.compile(loss="categorical_crossentropy", metrics=["accuracy"])
    probabilities, metrics = evaluate(model, split)
    if not (np.isfinite(metrics["loss"]) and np.isfinite(probabilities).all()):
        raise StageError(
            f"{path}: test loss ({metrics['loss']:.4g}) or predictions are not finite numbers: "
            f"training diverged; lower models.{name}.learning_rate in {paths.PARAMS}, then run "
            "`dvc repro`"
        )
    labels, predicted = split.labels(), probabilities.argmax(axis=1)
    matrix = statistics.confusion_matrix(labels, predicted, len(classes))
    print(f"{name}: test accuracy {metrics['accuracy']:.2%}, test loss {metrics['loss']:.4f}")

    details = {
        "classes": classes,
        "image_size": split.image_shape[:2],
        "parameters": int(model.count_params()),
        "sha256": sha256(path),
        "software": {x: version(x) for x in ("keras", keras.backend.backend(), "numpy")},
    }
    metrics_path = paths.METRICS / f"{name}.json"
    with atomic_write(paths.EVALUATIONS / name) as folder:
        folder.mkdir()
        np.save(folder / "probabilities.npy", probabilities)
        write_json(folder / "evaluation.json", {**metrics, **details})
        write_csv(
            paths.PREDICTIONS / f"{name}.csv",
            ["true", "predicted"],
            ([classes[label] for label in pair] for pair in zip(labels, predicted, strict=True)),
        )
        write_csv(
            paths.CLASS_ACCURACIES / f"{name}.csv",
            ["class", "accuracy"],
            zip(classes, statistics.class_accuracies(matrix), strict=True),
        )
        write_json(metrics_path, metrics | balanced_accuracy(matrix))
    print_outputs(metrics_path, paths.EVALUATIONS / name)


if __name__ == "__main__":
    main(command_line.model_name("stages.evaluate", __doc__))
