"""Statistics of predictions on the test images, with their uncertainty."""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

BINS = 15  # of the confidence, as in Guo et al.
SIGNIFICANCE = 0.05
DRAWS = 9_999  # of a permutation test
IMBALANCE_RATIO = 1.5  # of the largest class to the smallest, from which their sizes matter


class Interval(NamedTuple):
    """Bounds of a proportion, both in [0, 1]."""

    low: float
    high: float


class Pair(NamedTuple):
    """Two models on the same images: how many only one of them classifies correctly."""

    only_first: int
    only_second: int
    p_value: float


@dataclass(frozen=True)
class Reliability:
    """Images by the confidence of their prediction, in equal bins of [0, 1]; arrays (BINS,)."""

    counts: np.ndarray
    confidence: np.ndarray  # mean of each bin, 0 if it is empty
    accuracy: np.ndarray

    @property
    def expected_calibration_error(self) -> float:
        """Mean distance between confidence and accuracy, weighted by the images of each bin."""
        return float(np.average(abs(self.accuracy - self.confidence), weights=self.counts))


@cache  # the same few numbers occur in many classes, and SciPy also computes a slow p-value
def wilson_interval(successes: int, trials: int) -> Interval:
    """The 95 % interval of a proportion (Wilson, JASA 22, 1927); (0, 1) without trials."""
    if trials == 0:
        return Interval(0.0, 1.0)
    bounds = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    return Interval(float(bounds.low), float(bounds.high))


def mcnemar(first: np.ndarray, second: np.ndarray) -> Pair:
    """The exact two-sided McNemar test, given the correct predictions of each model, (N,) bool.

    Under the null hypothesis, an image that only one model classifies correctly is equally likely
    to be either's (Psychometrika 12, 1947; exact: the sign test).
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    discordant = only_first + only_second
    p_value = binomtest(only_first, discordant).pvalue if discordant else 1.0
    return Pair(only_first, only_second, float(p_value))


def balanced_mcnemar(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> Pair:
    """McNemar's test of the difference in balanced accuracy, given (N,) bool, (N,) and the labels.

    Each class counts the same. Under the null hypothesis, an image that only one model classifies
    correctly is equally likely to be either's, in each class: a permutation test by random draws.
    """
    images = np.bincount(labels)
    only_first, only_second = (
        np.bincount(labels[correct], minlength=len(images))
        for correct in (first & ~second, second & ~first)
    )
    discordant, weights = only_first + only_second, 1 / np.maximum(images, 1)
    draws = np.random.default_rng(0).binomial(discordant, 0.5, (DRAWS, len(images)))
    differences = abs((2 * draws - discordant) @ weights)
    observed = abs((only_first - only_second) @ weights)
    as_large = int((differences >= observed - 1e-9).sum())  # up to rounding
    p_value = (as_large + 1) / (DRAWS + 1)
    return Pair(int(only_first.sum()), int(only_second.sum()), p_value)


def top_k_accuracy(probabilities: np.ndarray, labels: np.ndarray, k: int) -> float:
    """How often the true class is among the k most probable, given (N, K) and (N,).

    Of equally probable classes, the first ones count.
    """
    true = np.take_along_axis(probabilities, labels[:, None], axis=1)
    first = np.arange(probabilities.shape[1]) < labels[:, None]
    before = (probabilities > true) | ((probabilities == true) & first)
    return float((before.sum(axis=1) < k).mean())


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> Reliability:
    """How often predictions of each confidence are correct, given (N, K) and (N,).

    Guo et al., *On Calibration of Modern Neural Networks*, 2017, https://arxiv.org/abs/1706.04599.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    sums = (np.bincount(bins, values, BINS) for values in (confidence, correct))
    mean_confidence, accuracy = (total / np.maximum(counts, 1) for total in sums)
    return Reliability(counts, mean_confidence, accuracy)


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Count images by true class (row) and predicted class (column), given (N,) integers each."""
    counts = np.bincount(labels * classes + predicted, minlength=classes**2)
    return counts.reshape(classes, classes)


def class_accuracies(matrix: np.ndarray) -> np.ndarray:
    """The accuracy of each true class; 0 for a class without images, as in a small set."""
    accuracies: np.ndarray = matrix.diagonal() / np.maximum(matrix.sum(axis=1), 1)
    return accuracies


def balanced_accuracy(matrix: np.ndarray) -> float:
    """The mean accuracy of the classes that have images: each class counts the same.

    Brodersen et al., *The Balanced Accuracy and Its Posterior Distribution*, ICPR 2010.
    """
    return float(class_accuracies(matrix)[matrix.any(axis=1)].mean())


def unequal(counts: np.ndarray) -> bool:
    """Whether classes with these numbers of images, (K,), differ so much that accuracy misleads."""
    return bool(counts.max() > IMBALANCE_RATIO * counts.min())
