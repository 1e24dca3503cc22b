"""The moving averages of batch normalization become the means over batches of training images."""

from typing import Any, cast

import numpy as np
import pytest

from stages.common.quiet_keras import keras
from stages.dataset.batch_loader import BatchLoader
from stages.training import batch_normalization

layers = keras.layers
RANDOM = np.random.default_rng(0)


def loader(*images: np.ndarray) -> BatchLoader:
    """Batches of these images."""
    return cast(BatchLoader, [(batch, None) for batch in images])


def averages(layer: Any) -> list[np.ndarray]:
    """Moving mean and moving variance."""
    return [layer.moving_mean.numpy(), layer.moving_variance.numpy()]


def test_averages_are_the_means_over_the_batches_in_training_mode() -> None:
    first, second = (layers.BatchNormalization(momentum=momentum) for momentum in (0.9, 0.8))
    frozen = layers.BatchNormalization(trainable=False)
    nested = keras.Sequential([keras.Input((3,)), first, layers.Activation("relu"), frozen])
    model = keras.Sequential([keras.Input((3,)), nested, layers.Dense(2), second])
    weights = [weight.numpy().copy() for weight in model.trainable_weights]
    batches = [RANDOM.normal(5, 3, (count, 3)).astype(np.float32) for count in (8, 8, 5)]

    batch_normalization.recompute(model, loader(*batches))
    expected: dict[Any, list[np.ndarray]] = {first: [], second: []}
    for batch in batches:
        moments = np.stack([batch.mean(axis=0), batch.var(axis=0)])
        normalized = (batch - moments[0]) / np.sqrt(moments[1] + first.epsilon)
        inner = np.asarray(model.layers[1](frozen(np.maximum(normalized, 0))))
        expected[first].append(moments)
        expected[second].append(np.stack([inner.mean(axis=0), inner.var(axis=0)]))
    for layer, of_batches in expected.items():
        assert np.stack(averages(layer)) == pytest.approx(np.mean(of_batches, axis=0), rel=1e-4)
    assert (first.momentum, second.momentum) == (0.9, 0.8)
    assert np.array_equal(averages(frozen), [np.zeros(3), np.ones(3)])
    for weight, before in zip(model.trainable_weights, weights, strict=True):
        assert np.array_equal(weight.numpy(), before)


def test_model_whose_averages_lag_behind_is_right_about_other_images_afterwards() -> None:
    model = keras.Sequential([keras.Input((1,)), layers.BatchNormalization(), layers.Dense(2)])
    model.layers[-1].set_weights([np.array([[-1.0, 1.0]]), np.zeros(2)])
    labels = np.arange(40) % 2
    training, other = (100 + 10 * labels + RANDOM.normal(0, 1, (2, 40)))[..., None]

    def accuracy() -> float:
        return float(np.mean(np.asarray(model(other)).argmax(axis=1) == labels))

    assert accuracy() == 0.5
    batch_normalization.recompute(model, loader(training[:20], training[20:]))
    assert accuracy() == 1.0
