"""The results of one trained model, read from what training and evaluation wrote."""

import csv
import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from stages.common import paths
from stages.common.errors import StageError
from stages.dataset.classes import CLASSES
from stages.reporting import statistics

CURVES = ["train_accuracy", "train_loss", "val_accuracy", "val_loss"]


@dataclass(frozen=True)
class ModelResult:
    """One trained model on the N test images."""

    name: str
    accuracy: float
    loss: float
    parameters: int
    sha256: str  # of the model's file
    software: dict[str, str]  # versions by package
    curves: dict[str, list[float]]  # one value per epoch, by name in CURVES
    minutes: list[float]  # training time at the end of each epoch; empty if not recorded
    labels: np.ndarray  # (N,) integers
    probabilities: np.ndarray  # (N, 10) float32

    @cached_property
    def predicted(self) -> np.ndarray:
        """The predicted class of each image, (N,) integers."""
        classes: np.ndarray = self.probabilities.argmax(axis=1)
        return classes

    @cached_property
    def correct(self) -> np.ndarray:
        """Whether each prediction is correct, (N,) bool."""
        correct: np.ndarray = self.predicted == self.labels
        return correct

    @cached_property
    def interval(self) -> statistics.Interval:
        """The 95 % confidence interval of the accuracy, given the sampling of test images."""
        return statistics.wilson_interval(int(self.correct.sum()), len(self.correct))

    @cached_property
    def top2_accuracy(self) -> float:
        """How often the true class is among the two most probable."""
        return statistics.top_k_accuracy(self.probabilities, self.labels, 2)

    @cached_property
    def reliability(self) -> statistics.Reliability:
        """Accuracy by confidence."""
        return statistics.reliability(self.probabilities, self.labels)

    @cached_property
    def confusion_matrix(self) -> np.ndarray:
        """Number of images by (true class, predicted class), (10, 10) integers."""
        return statistics.confusion_matrix(self.labels, self.predicted, len(CLASSES))

    @cached_property
    def class_accuracies(self) -> np.ndarray:
        """The accuracy of each true class, (10,)."""
        return statistics.class_accuracies(self.confusion_matrix)

    def most_confident_mistakes(self, count: int) -> np.ndarray:
        """The indices of at most `count` misclassified images, most confident first."""
        wrong = np.flatnonzero(~self.correct)
        order = np.argsort(-self.probabilities[wrong].max(axis=1), kind="stable")
        return wrong[order][:count]


def read_curve(name: str, column: str) -> list[float]:
    """One learning curve, as written by DVCLive."""
    path = paths.CURVES / name / f"plots/metrics/{column}.tsv"
    with path.open(newline="", encoding="utf-8") as file:
        return [float(row[column]) for row in csv.DictReader(file, delimiter="\t")]


def read_minutes(name: str, model_sha256: str, epochs: int) -> list[float]:
    """The training time in minutes at the end of each epoch.

    Empty if no timing is recorded for the model file of that checksum, for example because DVC
    restored the file after another training run.
    """
    try:
        timing = json.loads((paths.TIMINGS / f"{name}.json").read_text(encoding="utf-8"))
        seconds = [float(value) for value in timing["epoch_seconds"]]
        recorded = timing["model_sha256"] == model_sha256 and len(seconds) == epochs
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return list(np.cumsum(seconds) / 60) if recorded else []


def read(name: str, labels: np.ndarray) -> ModelResult:
    """The results of one model on test images with these labels, (N,).

    Raises `StageError` if they are missing, damaged or of other images.
    """
    folder = paths.EVALUATIONS / name
    try:
        evaluation = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
        probabilities = np.load(folder / "probabilities.npy", allow_pickle=False)
        if probabilities.shape != (len(labels), len(CLASSES)):
            raise ValueError(f"{folder}: probabilities {probabilities.shape}, {len(labels)} labels")
        curves = {column: read_curve(name, column) for column in CURVES}
        return ModelResult(
            name=name,
            labels=labels,
            probabilities=probabilities,
            curves=curves,
            minutes=read_minutes(name, evaluation["sha256"], len(curves["val_accuracy"])),
            **evaluation,
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise StageError(
            f"the results of {name} cannot be read: {error}; run `dvc repro`"
        ) from None
