"""What happens before and after each epoch: shuffle, freeze batch normalization, record."""

import time

from stages.common.errors import StageError
from stages.common.quiet_keras import keras
from stages.dataset.batch_loader import BatchLoader
from stages.training.checkpoints import Checkpoints
from stages.training.learning_curves import LearningCurves


class Shuffle(keras.callbacks.Callback):
    """Shuffles the training images before each epoch, given by seed and epoch alone."""

    def __init__(self, batches: BatchLoader, seed: int) -> None:
        super().__init__()
        self.batches, self.seed = batches, seed

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.batches.shuffle(self.seed, epoch)


class FrozenBatchNormalization(keras.callbacks.Callback):
    """Freezes batch normalization, including its moving averages, for the first `epochs`.

    Otherwise batches of other images than the network was pretrained on move the averages faster
    than the weights can adapt (https://keras.io/guides/transfer_learning/). Raises `StageError` on
    backends other than TensorFlow.
    """

    def __init__(self, epochs: int) -> None:
        super().__init__()
        if epochs and keras.backend.backend() != "tensorflow":
            raise StageError(
                f"params.yaml: frozen_batch_norm_epochs: {epochs}: Keras can unfreeze layers "
                "during training on TensorFlow only; set it to 0, or KERAS_BACKEND=tensorflow"
            )
        self.epochs = epochs

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        trainable = epoch >= self.epochs
        normalizations = [
            layer
            for layer in self.model._flatten_layers()
            if isinstance(layer, keras.layers.BatchNormalization)
        ]
        if any(layer.trainable != trainable for layer in normalizations):
            for layer in normalizations:
                layer.trainable = trainable
            self.model.make_train_function(force=True)


class RecordEpoch(keras.callbacks.Callback):
    """Records learning curves and a checkpoint after each epoch."""

    def __init__(self, checkpoints: Checkpoints, curves: LearningCurves) -> None:
        super().__init__()
        self.checkpoints, self.curves = checkpoints, curves

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        seconds = time.monotonic() - self.started
        metrics = {name: float(value) for name, value in (logs or {}).items()}
        self.checkpoints.history.append({"epoch": epoch + 1, **metrics, "seconds": seconds})
        self.curves.append(self.checkpoints.history[-1])
        self.checkpoints.save()
