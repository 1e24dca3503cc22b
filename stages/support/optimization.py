"""Loss and optimizer as a model's settings describe them, made of Keras' own parts."""

from typing import Any

from stages.support.errors import StageError
from stages.support.params import ModelParams
from stages.support.quietly import keras

BIASES = ("bias", "beta")  # Keras' names of what layers and batch normalisation add


def learning_rate(
    settings: ModelParams, steps: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate in each of a training's `steps`.

    It rises from 0 in the fraction `warmup` of them, then stays or falls to 0 along a cosine.
    """
    warmup = round(settings.warmup * steps)
    if settings.schedule == "constant" and not warmup:
        return settings.learning_rate
    return keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else settings.learning_rate,
        decay_steps=max(steps - warmup, 1),
        alpha=1.0 if settings.schedule == "constant" else 0.0,
        warmup_target=settings.learning_rate if warmup else None,
        warmup_steps=warmup,
    )


def with_bias_learning_rate(
    base: type[keras.optimizers.Optimizer], factor: float
) -> type[keras.optimizers.Optimizer]:
    """The same optimizer, with biases learning `factor` times as fast; Keras has no such option."""

    class WithBiasLearningRate(base):
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            # On TensorFlow `variable` is its own kind, of another name than Keras'.
            name = self._trainable_variables[self._get_variable_index(variable)].name
            own = learning_rate * factor if name in BIASES else learning_rate
            super().update_step(gradient, variable, own)

    return WithBiasLearningRate


def new_optimizer(
    settings: ModelParams, steps: int, bias_learning_rate: float = 1.0
) -> keras.optimizers.Optimizer:
    """An optimizer for a training of so many steps."""
    options: dict[str, Any] = {"learning_rate": learning_rate(settings, steps)}
    if settings.weight_decay:
        options["weight_decay"] = settings.weight_decay
    if settings.weight_averaging:
        options |= {"use_ema": True, "ema_momentum": settings.weight_averaging}
    base: type[keras.optimizers.Optimizer]
    if settings.optimizer == "adam":
        base, options["beta_1"] = keras.optimizers.Adam, settings.momentum
    else:
        base, options["momentum"] = keras.optimizers.SGD, settings.momentum
        options["nesterov"] = True
    if bias_learning_rate != 1:
        base = with_bias_learning_rate(base, bias_learning_rate)
    return base(**options)


def compile_to_train(
    model: keras.Model, settings: ModelParams, steps: int, steps_per_execution: int
) -> None:
    """Give a model its loss, its metric and its optimizer, built."""
    optimizer = new_optimizer(settings, steps, settings.bias_learning_rate)
    compile_model(model, settings, optimizer, steps_per_execution)
    optimizer.build(model.trainable_variables)


def compile_to_save(model: keras.Model, settings: ModelParams, steps: int) -> None:
    """Give a model the same without the optimizer's state: the file is a third of the size.

    The optimizer is Keras' own class, so that Keras alone can load the file.
    """
    compile_model(model, settings, new_optimizer(settings, steps))


def compile_model(
    model: keras.Model,
    settings: ModelParams,
    optimizer: keras.optimizers.Optimizer,
    steps_per_execution: int = 1,
) -> None:
    """Compile a model with the loss that its settings describe, and accuracy."""
    smoothing = settings.label_smoothing
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=smoothing)
        if smoothing
        else "categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=steps_per_execution,
    )


class FrozenBatchNormalization(keras.callbacks.Callback):
    """Keeps batch normalisation as it was, averages and all, for so many `epochs` of a training.

    Batches of other pictures than the network was pretrained on would at first move its averages
    faster than its weights can follow (https://keras.io/guides/transfer_learning/). `StageError`
    on a backend other than TensorFlow.
    """

    def __init__(self, epochs: int) -> None:
        super().__init__()
        if epochs and keras.backend.backend() != "tensorflow":
            raise StageError(
                f"params.yaml: frozen_batch_norm_epochs: {epochs}: Keras can thaw layers within a "
                "training on TensorFlow only; set it to 0, or KERAS_BACKEND=tensorflow"
            )
        self.epochs = epochs

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        trainable = epoch >= self.epochs
        found = [
            layer
            for layer in self.model._flatten_layers()
            if isinstance(layer, keras.layers.BatchNormalization)
        ]
        if any(layer.trainable != trainable for layer in found):
            for layer in found:
                layer.trainable = trainable
            self.model.make_train_function(force=True)
