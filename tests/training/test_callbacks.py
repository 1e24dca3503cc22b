"""Batch normalization is frozen only within epochs, and diverged training stops."""

import math

import numpy as np
import pytest

from stages.common.errors import StageError
from stages.common.quiet_keras import keras
from stages.training.callbacks import FrozenBatchNormalization, StopIfDiverged

VALUES = {"finite": 0.5, "large": 3e38, "NaN": math.nan, "infinite": math.inf, "-inf": -math.inf}


def new_model() -> keras.Model:
    """A network in which batch normalization is nested, and frozen in one of two layers."""
    block = keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization()])
    frozen = keras.layers.BatchNormalization(trainable=False)
    return keras.Sequential([keras.Input((2,)), frozen, block, keras.layers.Dense(2)])


def new_callback() -> StopIfDiverged:
    """The callback in the third epoch of a training run."""
    callback = StopIfDiverged("simple_cnn", learning_rate=0.1)
    callback.set_model(new_model())
    callback.on_epoch_begin(2)
    return callback


def assert_diverged(error: StageError, key: str) -> None:
    assert str(error) == (
        f"error: simple_cnn: training diverged in epoch 3: {key} is not finite; lower "
        "models.simple_cnn.learning_rate in params.yaml, which is 0.1"
    )


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_loss_that_is_not_finite_stops_training_within_the_epoch(value: float) -> None:
    callback, logs = new_callback(), {"accuracy": 0.1, "loss": value}
    if math.isfinite(value):
        callback.on_train_batch_end(7, logs)
        return
    with pytest.raises(StageError) as caught:
        callback.on_train_batch_end(7, logs)
    assert_diverged(caught.value, "loss")


@pytest.mark.parametrize("key", ["loss", "accuracy", "val_loss", "val_accuracy"])
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_metric_that_is_not_finite_stops_training_after_the_epoch(key: str, value: float) -> None:
    callback, logs = new_callback(), {"loss": 1.0, key: value}
    if math.isfinite(value):
        callback.on_epoch_end(2, logs)
        return
    with pytest.raises(StageError) as caught:
        callback.on_epoch_end(2, logs)
    assert_diverged(caught.value, key)


@pytest.mark.parametrize("name", ["moving_variance", "gamma", "kernel"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weight_that_is_not_finite_stops_training_although_the_loss_is(
    name: str, value: float
) -> None:
    callback = new_callback()
    callback.on_epoch_end(2, {"loss": 1.0})
    variable = next(x for x in callback.model.variables if x.name == name)
    values = np.asarray(variable).copy()
    values.flat[-1] = value
    variable.assign(values)
    with pytest.raises(StageError) as caught:
        callback.on_epoch_end(2, {"loss": 1.0})
    assert_diverged(caught.value, variable.path)


@pytest.mark.parametrize(
    ("total", "within", "between"),
    [
        (4, [False, False, True, True], [True] * 4),
        (2, [False, False], [False, False]),
    ],
    ids=["in the first epochs", "in all epochs"],
)
def test_batch_normalization_is_frozen_and_thaws(
    total: int, within: list[bool], between: list[bool]
) -> None:
    model = new_model()
    always_frozen, block, _ = model.layers
    (normalization,) = block.layers
    callback = FrozenBatchNormalization(model, 2, total)
    callback.set_model(model)
    model.compile(loss="mse")
    callback.on_train_begin()
    for epoch in range(total):
        callback.on_epoch_begin(epoch)
        assert normalization.trainable is within[epoch]
        callback.on_epoch_end(epoch)
        assert normalization.trainable is between[epoch]
        assert not always_frozen.trainable
    callback.on_train_end()
    assert normalization.trainable
    assert not always_frozen.trainable


def test_batch_normalization_thaws_during_training_on_tensorflow_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    FrozenBatchNormalization(new_model(), 4, 4)
    with pytest.raises(StageError, match=r"frozen_batch_norm_epochs: 2: .* set it to 0 or 4, or"):
        FrozenBatchNormalization(new_model(), 2, 4)
