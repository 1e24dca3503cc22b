"""The results of one trained model, read from what training and evaluation wrote."""

import json
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from pydantic import BaseModel, NonNegativeInt, PositiveInt

from stages.common import paths
from stages.common.errors import reading
from stages.reporting import statistics

CURVES = ["train_accuracy", "train_loss", "val_accuracy", "val_loss"]
FEW_CLASSES = 20  # up to this many, charts name and number each class


class Evaluation(BaseModel):
    """What is used of `evaluation.json`, written by the evaluate stage."""

    classes: list[str]
    image_size: tuple[PositiveInt, PositiveInt]  # height and width
    accuracy: float
    loss: float
    parameters: NonNegativeInt
    sha256: str  # of the model's file
    software: dict[str, str]  # versions by package


@dataclass(frozen=True)
class ModelResult:
    """One trained model on the N test images."""

    name: str
    classes: list[str]
    image_size: tuple[int, int]  # height and width
    accuracy: float
    loss: float
    parameters: int
    sha256: str  # of the model's file
    software: dict[str, str]  # versions by package
    curves: dict[str, list[float]]  # one value per epoch, by name in CURVES
    minutes: list[float]  # training time at the end of each epoch; empty if not recorded
    labels: np.ndarray  # (N,) integers
    probabilities: np.ndarray  # (N, K) float32

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
    def top_k_accuracy(self) -> dict[int, float]:
        """How often the true class is among the k most probable, by k; none for two classes."""
        if len(self.classes) == 2:
            return {}
        k = 5 if self.many_classes else 2
        return {k: statistics.top_k_accuracy(self.probabilities, self.labels, k)}

    @cached_property
    def reliability(self) -> statistics.Reliability:
        """Accuracy by confidence."""
        return statistics.reliability(self.probabilities, self.labels)

    @cached_property
    def tendency(self) -> str:
        """Whether the model's mean confidence is above or below its accuracy."""
        confident = self.probabilities.max(axis=1).mean() > self.correct.mean()
        return "overconfident" if confident else "underconfident"

    @cached_property
    def confusion_matrix(self) -> np.ndarray:
        """Number of images by (true class, predicted class), (K, K) integers."""
        return statistics.confusion_matrix(self.labels, self.predicted, len(self.classes))

    @cached_property
    def class_accuracies(self) -> np.ndarray:
        """The accuracy of each true class, (K,)."""
        return statistics.class_accuracies(self.confusion_matrix)

    @cached_property
    def class_intervals(self) -> list[statistics.Interval]:
        """The 95 % confidence interval of each class's accuracy."""
        matrix = self.confusion_matrix
        return [
            statistics.wilson_interval(int(correct), int(images))
            for correct, images in zip(matrix.diagonal(), matrix.sum(axis=1), strict=True)
        ]

    @cached_property
    def balanced_accuracy(self) -> float:
        """The mean of the classes' accuracies."""
        return statistics.balanced_accuracy(self.confusion_matrix)

    @cached_property
    def unequal_classes(self) -> bool:
        """Whether the classes' numbers of test images differ so much that accuracy misleads."""
        return statistics.unequal(self.confusion_matrix.sum(axis=1))

    @cached_property
    def score(self) -> float:
        """What models are ranked by: balanced accuracy if classes are unequal, else accuracy."""
        return self.balanced_accuracy if self.unequal_classes else self.accuracy

    @cached_property
    def largest_class_accuracy(self) -> float:
        """The accuracy of naming the largest class each time: chance, if classes are equal."""
        return float(self.confusion_matrix.sum(axis=1).max() / len(self.labels))

    @cached_property
    def failure(self) -> str:
        """Why the model is no better than always naming the largest class; empty if it is.

        Judged by what models are ranked by.
        """
        named = np.unique(self.predicted)
        if len(named) == 1:
            return f"predicts {self.classes[named[0]]} for every image"
        if not self.unequal_classes:
            low, chance = self.interval.low, self.largest_class_accuracy
            return f"the 95 % interval of its accuracy begins at {low:.1%}" if low <= chance else ""
        constant = self.labels == np.bincount(self.labels).argmax()
        pair = statistics.balanced_mcnemar(self.correct, constant, self.labels)
        chance = 1 / len(self.classes)
        if self.balanced_accuracy > chance and pair.p_value < statistics.SIGNIFICANCE:
            return ""
        return f"its balanced accuracy, {self.score:.1%}, is not significantly above {chance:.1%}"

    @cached_property
    def missed_classes(self) -> list[str]:
        """The classes of whose test images none is classified correctly."""
        matrix = self.confusion_matrix
        missed = matrix.any(axis=1) & (matrix.diagonal() == 0)
        return [self.classes[index] for index in np.flatnonzero(missed)]

    @property
    def many_classes(self) -> bool:
        """Whether there are too many classes for a name and numbers of each in a chart."""
        return len(self.classes) > FEW_CLASSES

    def classes_by_accuracy(self) -> np.ndarray:
        """The indices of all classes, the least accurate first."""
        order: np.ndarray = np.argsort(self.class_accuracies, kind="stable")
        return order

    def confusions(self, count: int) -> list[tuple[int, int, int]]:
        """At most `count` most frequent confusions: true class, predicted class, images."""
        mistakes = self.confusion_matrix - np.diag(self.confusion_matrix.diagonal())
        order = np.argsort(-mistakes, axis=None, kind="stable")[:count]
        pairs = zip(*np.unravel_index(order, mistakes.shape), strict=True)
        return [(int(t), int(p), int(mistakes[t, p])) for t, p in pairs if mistakes[t, p]]

    def most_confident_mistakes(self, count: int) -> np.ndarray:
        """The indices of at most `count` misclassified images, most confident first."""
        wrong = np.flatnonzero(~self.correct)
        order = np.argsort(-self.probabilities[wrong].max(axis=1), kind="stable")
        return wrong[order][:count]


def read_curve(name: str, column: str) -> list[float]:
    """One learning curve of a model, as written by DVCLive."""
    path = paths.CURVES / name / f"plots/metrics/{column}.tsv"
    with reading(path):
        _, values = np.loadtxt(path, skiprows=1, ndmin=2, unpack=True)
        return [float(value) for value in values]


def read_minutes(name: str, model_sha256: str) -> list[float]:
    """The training time in minutes at the end of each epoch.

    Empty if no time is recorded for the model file of that checksum, for example because DVC
    restored the file after another training run.
    """
    # DVC does not restore this file if it is missing or damaged, as it is not an output.
    with suppress(OSError, ValueError, LookupError, TypeError):
        record = json.loads((paths.PROVENANCE / f"{name}.json").read_bytes())
        if record["model_sha256"] == model_sha256:
            return list(np.cumsum(record["epoch_seconds"]) / 60)
    return []


def read_evaluation(name: str) -> Evaluation:
    """The evaluation of one model; raises `StageError` if it is missing or damaged."""
    path = paths.EVALUATIONS / name / "evaluation.json"
    with reading(path):
        return Evaluation.model_validate_json(path.read_bytes())


def read(name: str, labels: np.ndarray) -> ModelResult:
    """The results of one model on test images with these labels, (N,) integers.

    Raises `StageError` if they are missing or damaged.
    """
    evaluation = read_evaluation(name)
    path = paths.EVALUATIONS / name / "probabilities.npy"
    with reading(path):
        probabilities = np.load(path)
    return ModelResult(
        name=name,
        labels=labels,
        probabilities=probabilities,
        curves={column: read_curve(name, column) for column in CURVES},
        minutes=read_minutes(name, evaluation.sha256),
        **evaluation.model_dump(),
    )
