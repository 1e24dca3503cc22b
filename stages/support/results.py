"""What the stages before it left for the comparison, read back."""

import csv
import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from stages.support import paths, statistics
from stages.support.archive import CLASSES
from stages.support.errors import StageError

CURVES = ["train_accuracy", "train_loss", "val_accuracy", "val_loss"]


@dataclass(frozen=True)
class Result:
    """One trained model on the N test pictures."""

    name: str
    accuracy: float
    loss: float
    parameters: int
    sha256: str  # of the model's file
    software: dict[str, str]  # versions, by package
    curves: dict[str, list[float]]  # by column of CURVES, one number an epoch
    minutes: list[float]  # of training until each epoch's end, or none if they aren't known
    labels: np.ndarray  # (N,) integers
    probabilities: np.ndarray  # (N, 10) float32

    @cached_property
    def predicted(self) -> np.ndarray:
        """The likeliest class of every picture, (N,) integers."""
        classes: np.ndarray = self.probabilities.argmax(axis=1)
        return classes

    @cached_property
    def right(self) -> np.ndarray:
        """Whether that is the true one, (N,) bool."""
        right: np.ndarray = self.predicted == self.labels
        return right

    @cached_property
    def interval(self) -> statistics.Interval:
        """The 95 % interval of the accuracy, as far as the choice of test pictures goes."""
        return statistics.wilson_interval(int(self.right.sum()), len(self.right))

    @cached_property
    def top2_accuracy(self) -> float:
        """How often the true class is one of the two likeliest."""
        return statistics.top_k_accuracy(self.probabilities, self.labels, 2)

    @cached_property
    def reliability(self) -> statistics.Reliability:
        """Accuracy by confidence."""
        return statistics.reliability(self.probabilities, self.labels)

    @cached_property
    def confusion_matrix(self) -> np.ndarray:
        """Pictures by (true class, predicted class), (10, 10) integers."""
        return statistics.confusion_matrix(self.labels, self.predicted, len(CLASSES))

    @cached_property
    def class_accuracies(self) -> np.ndarray:
        """The accuracy of each true class, (10,)."""
        return statistics.class_accuracies(self.confusion_matrix)

    def most_confident_mistakes(self, count: int) -> np.ndarray:
        """The numbers of at most so many wrongly classified pictures, surest first."""
        wrong = np.flatnonzero(~self.right)
        surest = np.argsort(-self.probabilities[wrong].max(axis=1), kind="stable")
        return wrong[surest][:count]


def read_curve(name: str, column: str) -> list[float]:
    """One learning curve, as DVCLive wrote it."""
    path = paths.CURVES / name / f"plots/metrics/{column}.tsv"
    with path.open(newline="", encoding="utf-8") as file:
        return [float(row[column]) for row in csv.DictReader(file, delimiter="\t")]


def read_minutes(name: str, model_sha256: str, epochs: int) -> list[float]:
    """The minutes from a training's start to the end of each epoch, or none.

    None where nothing is recorded for the model of that checksum: a file that DVC brought back,
    say, after another training.
    """
    try:
        timing = json.loads((paths.TIMINGS / f"{name}.json").read_text(encoding="utf-8"))
        seconds = [float(value) for value in timing["epoch_seconds"]]
        known = timing["model_sha256"] == model_sha256 and len(seconds) == epochs
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return list(np.cumsum(seconds) / 60) if known else []


def read(name: str, labels: np.ndarray) -> Result:
    """The results of one model on the test pictures of these classes, (N,).

    `StageError` where they are not there, damaged or belong to other pictures.
    """
    folder = paths.EVALUATIONS / name
    try:
        evaluation = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
        probabilities = np.load(folder / "probabilities.npy", allow_pickle=False)
        if probabilities.shape != (len(labels), len(CLASSES)):
            raise ValueError(f"{folder}: probabilities {probabilities.shape}, {len(labels)} labels")
        curves = {column: read_curve(name, column) for column in CURVES}
        return Result(
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
