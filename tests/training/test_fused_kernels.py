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


def train_one_step(file: Path, kernels: Kernels) -> tuple[float, list[np.ndarray], int]:
    """The loss, the step of each weight and the number of fused normalizations."""
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
    return loss, steps, training.count("FusedBatchNormalization")


@pytest.mark.parametrize(("policy", "error"), [("float32", 1e-5), ("mixed_bfloat16", 0.03)])
def test_fused_kernels_train_like_keras_layers_and_leave_none_behind(
    tmp_path: Path, policy: str, error: float
) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        loss, steps, none = train_one_step(tmp_path / "plain.keras", lambda model: nullcontext())
        fused_loss, fused_steps, fused = train_one_step(tmp_path / "fused.keras", fused_layers)
    finally:
        keras.config.set_dtype_policy("float32")
    assert (none, fused) == (0, 4)  # three of images, one of them frozen, and one of vectors
    assert all(step.any() for step in steps[:6])
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
