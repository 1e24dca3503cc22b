"""What happens around each epoch: freeze, stop if training diverged, record."""

import statistics
import time
from collections.abc import Iterable
from typing import Any

import numpy as np

from stages.common.errors import StageError
from stages.common.quiet_keras import keras
from stages.training import batch_normalization
from stages.training.checkpoints import Checkpoints
from stages.training.learning_curves import LearningCurves

SECONDS_BETWEEN = 30  # two lines about the time left


class FrozenBatchNormalization(keras.callbacks.Callback):
    """Freezes batch normalization, including its moving averages, in the first `epochs` of `total`.

    Otherwise batches of other images than the network was pretrained on move the averages faster
    than the weights can adapt (https://keras.io/guides/transfer_learning/). If
    `epochs` covers the whole training run, layers stay frozen throughout, from before the model is
    compiled. Otherwise they are unfrozen at each epoch's end, so that a checkpoint does not depend
    on where training resumed; this raises `StageError` on backends other than TensorFlow.
    """

    def __init__(self, model: keras.Model, epochs: int, total: int) -> None:
        super().__init__()
        self.epochs, self.unfreezes = epochs, epochs < total
        if epochs and self.unfreezes and keras.backend.backend() != "tensorflow":
            raise StageError(
                f"params.yaml: frozen_batch_norm_epochs: {epochs}: Keras can unfreeze layers "
                f"during training on TensorFlow only; set it to 0 or {total}, or "
                "KERAS_BACKEND=tensorflow"
            )
        self.normalizations = batch_normalization.layers(model)
        self.set_trainable(self.unfreezes)

    def set_trainable(self, trainable: bool) -> None:
        for layer in self.normalizations:
            layer.trainable = trainable

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if epoch < self.epochs:
            self.set_trainable(False)
        elif 0 < epoch == self.epochs:
            # Those so far do not train the layers, and have them folded into convolutions.
            self.model.make_train_function(force=True)
            self.model.make_test_function(force=True)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.set_trainable(self.unfreezes)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        self.set_trainable(True)


class StopIfDiverged(keras.callbacks.Callback):
    """Ends training with a `StageError` as soon as the loss, or a weight, is not finite.

    The loss is checked after each execution, weights and validation after each epoch.
    """

    async_safe = True  # Keras may check the loss while the next batches are trained on

    def __init__(self, name: str, learning_rate: float) -> None:
        super().__init__()
        self.name, self.learning_rate = name, learning_rate

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.check((logs or {}).items())

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.check((logs or {}).items())
        self.check((variable.path, variable) for variable in self.model.variables)

    def check(self, values: Iterable[tuple[str, Any]]) -> None:
        """Raise if one of the named values is not finite."""
        for key, value in values:
            if not np.isfinite(value).all():
                raise StageError(
                    f"{self.name}: training diverged in epoch {self.epoch}: {key} is not finite; "
                    f"lower models.{self.name}.learning_rate in params.yaml, which is "
                    f"{self.learning_rate:g}"
                )


class PrintTimeLeft(keras.callbacks.Callback):
    """Prints between epochs how long all `epochs` will still take, at most twice a minute."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs = epochs

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self.durations: list[float] = []
        self.printed = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.started = time.monotonic()
        if self.durations and self.started - self.printed >= SECONDS_BETWEEN:
            self.printed = self.started
            # The first epoch also traces the network; the median is that of the others.
            left = (self.epochs - epoch) * statistics.median(self.durations)
            print(f"about {max(1, round(left / 60))} min left", flush=True)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.durations.append(time.monotonic() - self.started)


class RecordEpoch(keras.callbacks.Callback):
    """Records learning curves and a checkpoint after each epoch.

    The first one's time includes `seconds_before`, in which features were computed.
    """

    def __init__(
        self, checkpoints: Checkpoints, curves: LearningCurves, seconds_before: float
    ) -> None:
        super().__init__()
        self.checkpoints, self.curves = checkpoints, curves
        self.seconds_before = seconds_before

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        seconds = time.monotonic() - self.started + self.seconds_before
        self.seconds_before = 0
        metrics = {name: float(value) for name, value in (logs or {}).items()}
        self.checkpoints.history.append({"epoch": epoch + 1, **metrics, "seconds": seconds})
        self.curves.append(self.checkpoints.history[-1])
        self.checkpoints.save()
