"""Fused kernels compute what Keras' layers compute, and leave a plain Keras model behind."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import pytest

from stages.common.quiet_keras import keras
from stages.training.fused_kernels import FusedAdam, fused_layers

layers = keras.layers
Kernels = Callable[[keras.Model], AbstractContextManager[None]]
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(2, 3, (64, 8, 8, 3)).astype("float32")
Y = np.eye(4, dtype="float32")[RANDOM.integers(0, 4, 64)]


def new_model() -> keras.Model:
    """A network with normalization and GELU of many kinds, some nested or frozen."""
    inner = keras.Sequential([keras.Input((8, 8, 5)), layers.BatchNormalization(scale=False)])
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(5, 3, activation="gelu", padding="same"),
            inner,
            layers.Activation("gelu"),
            layers.Conv2D(6, 3),
            layers.BatchNormalization(center=False, momentum=0.6, epsilon=1e-12),
            layers.BatchNormalization(trainable=False),
            layers.Flatten(),
            layers.Dense(4),
            layers.BatchNormalization(),  # of no image: not fused
            layers.Softmax(dtype="float32"),
        ]
    )
    # One step of plain SGD with learning rate 1 shows all gradients.
    model.compile(keras.optimizers.SGD(1.0), "categorical_crossentropy")
    return model


def new_frozen_model() -> keras.Model:
    """A network of convolutions with frozen normalization, of which the first two can be folded."""
    images = keras.Input((8, 8, 3))
    x = layers.Conv2D(5, 3, strides=2, padding="same")(images)
    x = layers.BatchNormalization(trainable=False)(x)
    x = layers.Conv2D(6, 2, use_bias=False)(layers.Activation("relu")(x))
    x = layers.BatchNormalization(scale=False, center=False, trainable=False)(x)
    x = layers.Conv2D(6, 1, activation="relu")(x)
    x = layers.BatchNormalization(trainable=False)(x)
    x = layers.Conv2D(6, 1)(x)
    x = layers.Add()([x, layers.BatchNormalization(trainable=False)(x)])
    x = layers.Conv2D(4, 1)(x)
    inner = keras.Model(images, [x, layers.BatchNormalization(trainable=False)(x)])
    x = layers.Flatten()(layers.Concatenate()(inner(images)))
    model = keras.Model(images, layers.Dense(4, "softmax", dtype="float32")(x))
    for variable in model.variables:  # else gamma is 1, and beta and the averages are 0 or 1
        variable.assign(variable + keras.random.uniform(variable.shape, 0, 0.3))
    model.compile(keras.optimizers.SGD(1.0), "categorical_crossentropy")
    return model


def train_one_step(
    file: Path, new_model: Callable[[], keras.Model], kernels: Kernels
) -> tuple[float, list[np.ndarray], list[str]]:
    """The loss, the step of each weight and the types of the layers."""
    keras.utils.set_random_seed(0)
    model = new_model()
    before, names = model.get_weights(), [variable.path for variable in model.variables]
    with kernels(model):
        loss = float(model.train_on_batch(X, Y))
        training = [type(layer).__name__ for layer in model._flatten_layers()]
    assert [variable.path for variable in model.variables] == names
    model.save(file)
    assert "stages." not in model.to_json()  # it loads without this project
    saved = keras.models.load_model(file)
    assert np.array_equal(saved.predict(X, verbose=0), model.predict(X, verbose=0))
    steps = [after - start for after, start in zip(model.get_weights(), before, strict=True)]
    return loss, steps, training


@pytest.mark.parametrize(("policy", "error"), [("float32", 1e-5), ("mixed_bfloat16", 0.03)])
@pytest.mark.parametrize(
    ("new_model", "fused", "folded", "trained"),
    # Normalizations, convolutions that are folded while theirs is frozen, and the first weights.
    [(new_model, 4, 1, 6), (new_frozen_model, 5, 2, 2)],
)
def test_fused_kernels_train_like_keras_layers_and_leave_none_behind(
    tmp_path: Path,
    policy: str,
    error: float,
    new_model: Callable[[], keras.Model],
    fused: int,
    folded: int,
    trained: int,
) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        loss, steps, plain = train_one_step(
            tmp_path / "plain.keras", new_model, lambda model: nullcontext()
        )
        fused_loss, fused_steps, types = train_one_step(
            tmp_path / "fused.keras", new_model, fused_layers
        )
    finally:
        keras.config.set_dtype_policy("float32")
    assert not {"FusedBatchNormalization", "FoldedConvolution"} & {*plain}
    assert types.count("FusedBatchNormalization") == fused
    assert types.count("FoldedConvolution") == folded
    assert all(step.any() for step in steps[:trained])
    assert sum(step.any() for step in steps) >= 6
    size = max(float(abs(step).max()) for step in steps)
    off = max(float(abs(a - b).max()) for a, b in zip(steps, fused_steps, strict=True))
    assert fused_loss == pytest.approx(loss, abs=error)
    assert off / size < error


def test_fused_adam_moves_weights_as_keras_adam_does() -> None:
    trained = []
    for optimizer in (keras.optimizers.Adam(0.01, beta_1=0.8), FusedAdam(0.01, beta_1=0.8)):
        kernel = keras.Variable(np.ones((20, 30)), dtype="float32")
        optimizer.build([kernel])
        for seed in range(5):
            gradient = np.random.default_rng(seed).normal(size=(20, 30)).astype("float32")
            optimizer.apply([keras.ops.array(gradient)])
        trained.append(kernel.numpy())
    moved, off = abs(1 - trained[0]).max(), abs(trained[0] - trained[1]).max()
    assert moved > 0.01
    assert off / moved < 1e-5
