"""What the test pictures say about a model, and how surely."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

BINS = 15  # of the confidence, as Guo et al. use


class Interval(NamedTuple):
    """Bounds of a proportion, both in [0, 1]."""

    low: float
    high: float


class Pair(NamedTuple):
    """Two models on the same pictures: how many only one of them classifies rightly."""

    only_first: int
    only_second: int
    p_value: float


@dataclass(frozen=True)
class Reliability:
    """Pictures by the confidence of their prediction, in equal bins of [0, 1]; arrays (BINS,)."""

    counts: np.ndarray
    confidence: np.ndarray  # mean of each bin, 0 where it is empty
    accuracy: np.ndarray

    @property
    def expected_calibration_error(self) -> float:
        """Mean distance between confidence and accuracy, weighted by the pictures of each bin."""
        return float(np.average(abs(self.accuracy - self.confidence), weights=self.counts))


def wilson_interval(successes: int, trials: int) -> Interval:
    """The 95 % interval of a proportion (Wilson, JASA 22, 1927)."""
    bounds = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    return Interval(float(bounds.low), float(bounds.high))


def mcnemar(first: np.ndarray, second: np.ndarray) -> Pair:
    """The exact two-sided McNemar test, given which pictures each model has right, (N,) bool each.

    Under the null hypothesis a picture that one of them alone has right is as likely to be either's
    (Psychometrika 12, 1947; exact: the sign test).
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    one_alone = only_first + only_second
    p_value = binomtest(only_first, one_alone).pvalue if one_alone else 1.0
    return Pair(only_first, only_second, float(p_value))


def top_k_accuracy(probabilities: np.ndarray, labels: np.ndarray, k: int) -> float:
    """How often the true class is among the k likeliest, given (N, 10) and (N,)."""
    likeliest = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float((likeliest == labels[:, None]).any(axis=1).mean())


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> Reliability:
    """How often predictions of each confidence are right, given (N, 10) and (N,).

    Guo et al., *On Calibration of Modern Neural Networks*, 2017, https://arxiv.org/abs/1706.04599.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    sums = (np.bincount(bins, values, BINS) for values in (confidence, right))
    mean_confidence, accuracy = (total / np.maximum(counts, 1) for total in sums)
    return Reliability(counts, mean_confidence, accuracy)


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Count pictures by true class (row) and predicted class (column), given (N,) integers each."""
    counts = np.bincount(labels * classes + predicted, minlength=classes**2)
    return counts.reshape(classes, classes)


def class_accuracies(matrix: np.ndarray) -> np.ndarray:
    """The accuracy of each true class; 0 for one without pictures, as a small set may have."""
    accuracies: np.ndarray = matrix.diagonal() / np.maximum(matrix.sum(axis=1), 1)
    return accuracies
