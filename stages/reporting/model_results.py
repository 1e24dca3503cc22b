"""The results of one trained model, read from what training and evaluation wrote."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import (
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    TypeAdapter,
    ValidationError,
)

from stages.common import paths
from stages.common.errors import StageError
from stages.common.params import Strict, describe
from stages.dataset.splits import map_array
from stages.reporting import statistics

CURVES = ["train_accuracy", "train_loss", "val_accuracy", "val_loss"]
FEW_CLASSES = 20  # for which each class has its name in charts, and numbers of its own
CURVE = TypeAdapter(Annotated[dict[str, FiniteFloat], Field(min_length=1)])


class Evaluation(Strict):
    """`evaluation.json`, written by the evaluate stage."""

    classes: list[str]
    image_size: tuple[PositiveInt, PositiveInt]  # height and width
    accuracy: float = Field(ge=0, le=1)
    loss: float = Field(ge=0)
    parameters: NonNegativeInt
    sha256: str  # of the model's file
    software: dict[str, str]  # versions by package


class Timing(Strict):
    """What is used of a timing, written by the train stage."""

    model_config = ConfigDict(extra="ignore")

    model_sha256: str
    epoch_seconds: list[NonNegativeFloat]


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


@contextmanager
def refuse_damage(path: Path, stage: str) -> Iterator[None]:
    """Turn an error while reading `path`, which `stage` wrote, into a `StageError`."""
    try:
        yield
    except (OSError, ValueError, csv.Error) as error:
        problem = str(error)
        if isinstance(error, ValidationError):
            problem = "; ".join(describe(error.errors())[:3])
        elif isinstance(error, OSError):
            problem = str(error.strerror)
        raise StageError(
            f"{path}: {problem}; run `dvc repro --force --single-item {stage}`, then `dvc repro`"
        ) from None


def read_probabilities(path: Path, images: int, classes: int) -> np.ndarray:
    """The predictions for N images, (N, K) float32; raises `ValueError` if they are none."""
    probabilities = np.array(map_array(path, (classes,)))
    if len(probabilities) != images:
        raise ValueError(f"has predictions for {len(probabilities)} images, not {images}")
    sums = probabilities.sum(axis=1)
    if not (probabilities >= 0).all() or not np.allclose(sums, 1, rtol=0, atol=1e-3):
        raise ValueError("has rows that are not probabilities, which add up to 1")
    return probabilities


def read_curve(path: Path) -> list[float]:
    """One learning curve, as written by DVCLive; raises `ValueError` if it is none."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = enumerate(csv.DictReader(file, delimiter="\t"), start=1)
        values = {f"epoch {epoch}": row.get(path.stem) for epoch, row in rows}
    return list(CURVE.validate_python(values).values())


def read_curves(name: str) -> dict[str, list[float]]:
    """The learning curves of one model, by their names in CURVES."""
    curves: dict[str, list[float]] = {}
    for column in CURVES:
        path = paths.CURVES / name / f"plots/metrics/{column}.tsv"
        with refuse_damage(path, f"train@{name}"):
            curves[column] = read_curve(path)
            epochs = {curve: len(values) for curve, values in curves.items()}
            if len(set(epochs.values())) > 1:
                raise ValueError(f"the curves have different numbers of epochs: {epochs}")
    return curves


def read_minutes(name: str, model_sha256: str, epochs: int) -> list[float]:
    """The training time in minutes at the end of each epoch.

    Empty if no timing is recorded for the model file of that checksum, for example because DVC
    restored the file after another training run.
    """
    try:
        timing = Timing.model_validate_json((paths.TIMINGS / f"{name}.json").read_bytes())
    except (OSError, ValidationError):
        return []
    if timing.model_sha256 != model_sha256 or len(timing.epoch_seconds) != epochs:
        return []
    return list(np.cumsum(timing.epoch_seconds) / 60)


def read_evaluation(name: str) -> Evaluation:
    """The evaluation of one model; raises `StageError` if it is missing or damaged."""
    path = paths.EVALUATIONS / name / "evaluation.json"
    with refuse_damage(path, f"evaluate@{name}"):
        return Evaluation.model_validate_json(path.read_bytes())


def read(name: str, classes: list[str], labels: np.ndarray) -> ModelResult:
    """The results of one model on test images of these classes with these labels, (N,).

    Raises `StageError` if they are missing, damaged or of other images.
    """
    evaluation = read_evaluation(name)
    path = paths.EVALUATIONS / name / "probabilities.npy"
    with refuse_damage(path, f"evaluate@{name}"):
        if evaluation.classes != classes:
            raise ValueError("belongs to other classes")
        probabilities = read_probabilities(path, len(labels), len(classes))
    curves = read_curves(name)
    return ModelResult(
        name=name,
        labels=labels,
        probabilities=probabilities,
        curves=curves,
        minutes=read_minutes(name, evaluation.sha256, len(curves["val_accuracy"])),
        **evaluation.model_dump(),
    )
