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

from stages.common import command_line, paths
from stages.common.atomic import atomic_write, write_csv, write_json
from stages.common.console import print_inputs, print_outputs
from stages.common.errors import StageError
from stages.common.hashing import sha256
from stages.common.process import RunningStage
from stages.common.quiet_keras import keras
from stages.dataset import description
from stages.dataset.batch_loader import BatchLoader
from stages.dataset.splits import Split, prediction_batch_size
from stages.reporting import statistics
from stages.training import model_file


def compute_metrics(
    probabilities: np.ndarray, labels: np.ndarray, matrix: np.ndarray
) -> dict[str, float]:
    """Accuracy and loss, given (N, K), (N,) and the confusion matrix (K, K).

    The loss is the categorical cross-entropy; a probability of 0 counts as the smallest normal
    number, to keep it finite. Balanced accuracy is added if classes are of unequal size.
    """
    of_true_class = probabilities[np.arange(len(labels)), labels].astype(float)
    metrics = {
        "accuracy": float(matrix.trace() / matrix.sum()),
        "loss": float(-np.log(of_true_class.clip(np.finfo(np.float32).tiny, 1)).mean()),
    }
    if statistics.unequal(matrix.sum(axis=1)):
        metrics["balanced_accuracy"] = statistics.balanced_accuracy(matrix)
    return metrics


def main(name: str) -> None:
    stage = RunningStage(f"evaluate@{name}")
    path = paths.MODELS / f"{name}.keras"
    print_inputs(path, paths.TEST, paths.DESCRIPTION)
    model, split, classes = model_file.load(path), Split(paths.TEST), description.read().classes
    batch_size = prediction_batch_size(split.image_shape)
    batches = BatchLoader(split, len(classes), batch_size).as_dataset()
    probabilities: np.ndarray = model.predict(batches, verbose=0)
    if not np.isfinite(probabilities).all():
        raise StageError(
            f"{path}: predictions are not finite numbers: training diverged; lower "
            f"models.{name}.learning_rate in {paths.PARAMS}, then run `dvc repro`"
        )
    labels, predicted = split.labels.astype(int), probabilities.argmax(axis=1)
    matrix = statistics.confusion_matrix(labels, predicted, len(classes))
    metrics = compute_metrics(probabilities, labels, matrix)
    print(f"{name}: test accuracy {metrics['accuracy']:.2%}, test loss {metrics['loss']:.4f}")

    details = {
        "classes": classes,
        "image_size": split.image_shape[:2],
        "parameters": int(model.count_params()),
        "sha256": sha256(path),
        "software": {name: version(name) for name in ("keras", keras.backend.backend(), "numpy")},
    }
    metrics_path = paths.METRICS / f"{name}.json"
    stage.check_inputs()
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
        write_json(metrics_path, metrics)
    print_outputs(metrics_path, paths.EVALUATIONS / name)


if __name__ == "__main__":
    command_line.run_stage(main, "stages.evaluate", __doc__, of_model=True)
