"""Optimizer and loss, as params.yaml describes them."""

from typing import Any

from stages.common.params import ModelParams
from stages.common.quiet_keras import keras
from stages.training.fused_kernels import FusedAdam
from stages.training.muon import Muon

IMAGES_PER_EXECUTION = 1024  # between two returns to Python


def learning_rate(
    settings: ModelParams, steps: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate of a training run of so many steps: a constant, or a schedule.

    It rises from 0 in the first `warmup_fraction` of the steps, then is constant or decays to 0
    along a cosine. The linear decay to 0 has no warm-up.
    """
    if settings.lr_schedule == "linear":
        return keras.optimizers.schedules.PolynomialDecay(settings.learning_rate, steps, 0.0)
    warmup_steps = round(settings.warmup_fraction * steps)
    if settings.lr_schedule == "constant" and not warmup_steps:
        return settings.learning_rate
    return keras.optimizers.schedules.CosineDecay(
        0.0 if warmup_steps else settings.learning_rate,
        decay_steps=max(steps - warmup_steps, 1),
        alpha=1.0 if settings.lr_schedule == "constant" else 0.0,
        warmup_target=settings.learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )


def keras_optimizer(
    settings: ModelParams, steps: int
) -> tuple[type[keras.optimizers.Optimizer], dict[str, Any]]:
    """The class and arguments of Keras' own optimizer for a training run of so many steps.

    It has one learning rate for all variables, and is SGD in place of Muon.
    """
    options: dict[str, Any] = {"learning_rate": learning_rate(settings, steps)}
    if settings.weight_decay:
        options["weight_decay"] = settings.weight_decay
    if settings.ema_decay:
        options |= {"use_ema": True, "ema_momentum": settings.ema_decay}
    if settings.optimizer == "adam":
        return keras.optimizers.Adam, options | {"beta_1": settings.momentum}
    return keras.optimizers.SGD, options | {"momentum": settings.momentum, "nesterov": True}


def training_optimizer(settings: ModelParams, steps: int) -> keras.optimizers.Optimizer:
    """The optimizer for a training run of so many steps."""
    base, options = keras_optimizer(settings, steps)
    on_tensorflow = keras.backend.backend() == "tensorflow"
    if settings.fused_kernels and on_tensorflow and settings.optimizer == "adam":
        base = FusedAdam
    if settings.optimizer == "muon":
        base = Muon
        options["kernel_lr_multiplier"] = settings.muon_lr_multiplier
        options["kernel_momentum"] = settings.muon_momentum
        options["bias_lr_multiplier"] = settings.muon_bias_lr_multiplier
    return base(**options)


def compile_for_training(model: keras.Model, settings: ModelParams, steps: int) -> None:
    """Compile a model for a training run of so many steps, and build its optimizer's variables."""
    optimizer = training_optimizer(settings, steps)
    compile_model(model, settings, optimizer, max(1, IMAGES_PER_EXECUTION // settings.batch_size))
    optimizer.build(model.trainable_variables)


def compile_for_saving(model: keras.Model, settings: ModelParams, steps: int) -> None:
    """Compile a model without the optimizer's variables, for a file a third of the size.

    The optimizer's class is Keras' own, so that the file loads without this project.
    """
    optimizer, options = keras_optimizer(settings, steps)
    compile_model(model, settings, optimizer(**options))


def compile_model(
    model: keras.Model,
    settings: ModelParams,
    optimizer: keras.optimizers.Optimizer,
    steps_per_execution: int = 1,
) -> None:
    """Compile a model with its loss and accuracy."""
    smoothing = settings.label_smoothing
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=smoothing)
        if smoothing
        else "categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=steps_per_execution,
    )
