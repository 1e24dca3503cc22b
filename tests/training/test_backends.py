"""JAX takes the steps that TensorFlow takes.

A process has one backend; those on JAX call functions of this module.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.architectures import fast94
from stages.common.quiet_keras import keras
from stages.training.fused_kernels import fused_layers
from tests.repository import run_keras_script

layers = keras.layers
RANDOM = np.random.default_rng(0)
# Few and small: in one of a million windows, rounding decides which element max-pooling takes, and
# so where the gradient goes.
X = RANDOM.random((8, 16, 16, 3), np.float32)
Y = np.eye(10, dtype=np.float32)[RANDOM.integers(0, 10, len(X))]
ON_JAX = """
import os
os.environ["KERAS_BACKEND"] = "jax"
from tests.training import test_backends
test_backends.{function}()
print("null")
"""


def small_network() -> keras.Model:
    """A convolution of fast94, with max-pooling and GELU, and a block of ResNet50, both narrow."""

    def convolution(x: Any, filters: int, size: int, strides: int = 1) -> Any:
        x = layers.Conv2D(filters, size, strides, padding="same")(x)
        return layers.BatchNormalization(momentum=0.9, epsilon=1.001e-5)(x)

    inputs = keras.Input(X.shape[1:])
    stem = fast94.convolution(inputs, 8, pool=True)
    x = layers.ReLU()(convolution(stem, 8, 1, strides=2))
    x = layers.ReLU()(convolution(x, 8, 3))
    x = layers.Add()([convolution(stem, 32, 1, strides=2), convolution(x, 32, 1)])
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(x))


def train_one_step() -> dict[str, np.ndarray]:
    """The loss, and the change of each weight in a step of plain SGD with learning rate 1."""
    model, random = small_network(), np.random.default_rng(1)
    for weight in model.weights:  # no scale is 1 and no offset 0, which could be left out unnoticed
        mean = 1 if weight.name in ("gamma", "moving_variance") else 0
        weight.assign(random.normal(mean, 0.1, weight.shape))
    before = model.get_weights()
    model.compile(keras.optimizers.SGD(1.0), "categorical_crossentropy")
    with fused_layers(model):
        changes = {"loss": np.array(model.train_on_batch(X, Y))}
    for weight, start, end in zip(model.weights, before, model.get_weights(), strict=True):
        changes[f"{len(changes)} {weight.name}"] = end - start
    return changes


def save_one_step() -> None:
    np.savez("step.npz", *train_one_step().values())


def test_a_step_on_jax_is_that_of_fused_kernels_on_tensorflow(tmp_path: Path) -> None:
    run_keras_script(ON_JAX.format(function="save_one_step"), tmp_path)
    on_tensorflow = train_one_step()
    on_jax = dict(zip(on_tensorflow, np.load(tmp_path / "step.npz").values(), strict=True))
    assert on_jax.pop("loss") == pytest.approx(on_tensorflow.pop("loss"), rel=1e-6)
    averages = {name for name in on_jax if "moving_" in name}
    for names in (averages, on_jax.keys() - averages):
        largest = max(abs(on_tensorflow[name]).max() for name in names)
        for name in names:
            assert abs(on_jax[name] - on_tensorflow[name]).max() < 1e-5 * largest, name
