"""Batch normalization is frozen only within epochs, diverged training stops, time is told."""

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest

from stages.common.errors import StageError
from stages.common.quiet_keras import keras
from stages.training import callbacks
from stages.training.callbacks import (
    FrozenBatchNormalization,
    PrintTimeLeft,
    RecordEpoch,
    StopIfDiverged,
)


def new_model() -> keras.Model:
    """A network in which batch normalization is nested, and frozen in one of two layers."""
    block = keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization()])
    frozen = keras.layers.BatchNormalization(trainable=False)
    return keras.Sequential([keras.Input((2,)), frozen, block, keras.layers.Dense(2)])


@pytest.fixture
def callback() -> StopIfDiverged:
    """The callback in the third epoch of a training run."""
    callback = StopIfDiverged("simple_cnn", learning_rate=0.1)
    callback.set_model(new_model())
    callback.on_epoch_begin(2)
    return callback


def stops(key: str) -> pytest.RaisesExc[StageError]:
    """What is raised as soon as this value is not finite."""
    message = (
        f"error: simple_cnn: training diverged in epoch 3: {key} is not finite; lower "
        "models.simple_cnn.learning_rate in params.yaml, which is 0.1"
    )
    return pytest.RaisesExc(StageError, check=lambda error: str(error) == message)


def test_metric_that_is_not_finite_stops_training(callback: StopIfDiverged) -> None:
    callback.on_train_batch_end(7, {"accuracy": 0.1, "loss": 3e38})
    callback.on_epoch_end(2, {"loss": 3e38, "val_loss": 0.5})
    for value in (math.nan, math.inf, -math.inf):
        with stops("loss"):
            callback.on_train_batch_end(7, {"accuracy": 0.1, "loss": value})
        for key in ("loss", "accuracy", "val_loss", "val_accuracy"):
            with stops(key):
                callback.on_epoch_end(2, {"loss": 1.0, key: value})


def test_weight_that_is_not_finite_stops_training_although_the_loss_is(
    callback: StopIfDiverged,
) -> None:
    callback.on_epoch_end(2, {"loss": 1.0})
    for name in ("moving_variance", "gamma", "kernel"):
        variable = next(x for x in callback.model.variables if x.name == name)
        finite = variable.numpy()
        values = finite.copy()
        values.flat[-1] = math.nan
        variable.assign(values)
        with stops(variable.path):
            callback.on_epoch_end(2, {"loss": 1.0})
        variable.assign(finite)


@pytest.mark.parametrize("total", [4, 2])
def test_batch_normalization_is_frozen_in_the_first_two_epochs(total: int) -> None:
    model = new_model()
    always_frozen, block, _ = model.layers
    (normalization,) = block.layers
    callback = FrozenBatchNormalization(model, 2, total)
    callback.set_model(model)
    model.compile(loss="mse")
    callback.on_train_begin()
    for epoch in range(total):
        callback.on_epoch_begin(epoch)
        assert normalization.trainable is (epoch >= 2)
        callback.on_epoch_end(epoch)
        assert normalization.trainable is (total > 2)
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


def test_time_left_is_printed_between_epochs_at_most_twice_a_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = 0
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(monotonic=lambda: seconds))
    callback = PrintTimeLeft(10)
    callback.on_train_begin()
    printed = {}
    for epoch in range(2, 10):  # resumed after two
        callback.on_epoch_begin(epoch)
        printed[epoch] = capsys.readouterr().out
        seconds += 80 if epoch == 2 else 20  # the first one traces the network
        callback.on_epoch_end(epoch)
    lines = {3: "about 9 min left\n", 5: "about 2 min left\n", 7: "about 1 min left\n"}
    lines[9] = "about 1 min left\n"  # of 20 seconds
    assert printed == dict.fromkeys(range(2, 10), "") | lines


def test_time_of_the_first_epoch_includes_that_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = 0
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(monotonic=lambda: seconds))
    checkpoints = cast(Any, SimpleNamespace(history=[], save=lambda: None))
    curves = cast(Any, SimpleNamespace(append=lambda epoch: None))
    callback = RecordEpoch(checkpoints, curves, seconds_before=100)
    for epoch in range(2):
        callback.on_epoch_begin(epoch)
        seconds += 7
        callback.on_epoch_end(epoch, {"loss": 0.5})
    assert checkpoints.history == [
        {"epoch": 1, "loss": 0.5, "seconds": 107},
        {"epoch": 2, "loss": 0.5, "seconds": 7},
    ]
