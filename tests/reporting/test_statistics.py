"""Statistics, compared with numbers from the literature and with examples counted by hand."""

import numpy as np
import pytest

from stages.reporting import statistics


def test_wilson_interval_matches_published_examples() -> None:
    # Newcombe, Statistics in Medicine 17, 1998, table I, method 3.
    for successes, trials, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        assert statistics.wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)
    assert statistics.wilson_interval(0, 0) == (0, 1)


def test_mcnemar_p_value_is_exact() -> None:
    first = np.array([True] * 9 + [False] * 1 + [True] * 30 + [False] * 5)
    second = np.array([False] * 9 + [True] * 1 + [True] * 30 + [False] * 5)
    # Of 10 images that only one model classifies correctly, at least 9 are the same model's:
    # 2 * (10 + 1) / 2 ** 10.
    assert statistics.mcnemar(first, second) == pytest.approx((9, 1, 22 / 1024))
    assert statistics.mcnemar(second, first) == pytest.approx((1, 9, 22 / 1024))
    assert statistics.mcnemar(first, first).p_value == 1


def test_balanced_mcnemar_is_the_exact_test_where_there_is_one_class() -> None:
    for only_first, only_second in ((9, 1), (6, 0), (30, 20), (0, 0)):
        first = np.repeat([True, False, True], [only_first, only_second, 20])
        second = np.repeat([False, True, True], [only_first, only_second, 20])
        exact = statistics.mcnemar(first, second)
        drawn = statistics.balanced_mcnemar(first, second, np.zeros(len(first), int))
        assert drawn[:2] == exact[:2]
        assert drawn.p_value == pytest.approx(exact.p_value, abs=0.02)  # four standard errors


def test_balanced_mcnemar_counts_every_class_the_same() -> None:
    # One model is right about all 6 images of a rare class, the other about 6 of 60 of another.
    labels = np.repeat([0, 1], [6, 60])
    first, second = labels == 0, np.arange(66) >= 60
    assert statistics.mcnemar(first, second) == (6, 6, 1)
    # As large a difference needs all 6 images of the rare class: 2 of 2 ** 6 cases, whatever the
    # others are, and the smallest of these differences, 1 - 6 / 60, is that of the two models.
    for one, other in ((first, second), (second, first)):
        compared = statistics.balanced_mcnemar(one, other, labels)
        assert compared == pytest.approx((6, 6, 2 / 64), abs=0.007)


def test_top_k_accuracy_counts_the_most_probable_classes() -> None:
    probabilities = np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    labels = np.array([0, 1, 2, 0])
    top = [statistics.top_k_accuracy(probabilities, labels, k) for k in (1, 2, 3)]
    assert top == [0.25, 0.75, 1]  # of equally probable classes the first one counts


def test_calibration_error_is_the_mean_distance_between_confidence_and_accuracy() -> None:
    confidence = np.array([0.9, 0.9, 0.9, 0.9, 0.62, 0.62])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    labels = np.array([0, 0, 0, 1, 0, 1])  # 3 of 4 correct at 0.9, 1 of 2 at 0.62
    reliability = statistics.reliability(probabilities, labels)
    assert reliability.expected_calibration_error == pytest.approx((4 * 0.15 + 2 * 0.12) / 6)


def test_confusion_matrix_counts_by_true_and_predicted_class() -> None:
    labels, predicted = np.array([0, 0, 1, 1, 1]), np.array([0, 2, 1, 1, 0])
    matrix = statistics.confusion_matrix(labels, predicted, 3)
    assert matrix.tolist() == [[1, 0, 1], [1, 2, 0], [0, 0, 0]]
    # The accuracy of a class without images is 0.
    assert statistics.class_accuracies(matrix).tolist() == [0.5, 2 / 3, 0]


def test_balanced_accuracy_counts_every_class_with_images_the_same() -> None:
    matrix = np.array([[90, 0, 10], [5, 5, 0], [0, 0, 0]])
    assert statistics.balanced_accuracy(matrix) == pytest.approx((0.9 + 0.5) / 2)


def test_classes_are_unequal_from_one_and_a_half_times_as_many_images() -> None:
    assert not statistics.unequal(np.array([10, 15, 12]))
    assert statistics.unequal(np.array([10, 16, 12]))
    assert statistics.unequal(np.array([10, 0]))
