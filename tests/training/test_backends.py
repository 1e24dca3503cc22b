"""JAX takes the steps that TensorFlow takes, on each epoch's own batches.

A process has one backend; those on JAX call functions of this module.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages import train
from stages.architectures import fast94
from stages.common.quiet_keras import keras
from stages.dataset.batch_loader import BatchLoader
from stages.dataset.splits import Split, SplitWriter
from stages.training import optimizer
from stages.training.fused_kernels import fused_layers
from tests.repository import Repository, copy_project, run_keras_script

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
    """The loss of a step of plain SGD, and the change of each weight; the same on each backend."""
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


def save_batches() -> None:
    """Train simple_cnn, and save what its loss is computed from: x and y of each step."""
    import jax

    arrays: list[np.ndarray] = []
    compute_loss = keras.Model.compute_loss

    def record(*batch: Any) -> None:
        arrays.extend(map(np.array, batch))

    def compute_and_record(
        model: keras.Model, x: Any, y: Any, *others: Any, training: bool = True
    ) -> Any:
        if training:
            jax.debug.callback(record, x, y, ordered=True)
        return compute_loss(model, x, y, *others, training=training)

    keras.Model.compute_loss = compute_and_record
    optimizer.IMAGES_PER_EXECUTION = 12  # 3 of an epoch's 10 steps
    train.main("simple_cnn")
    jax.effects_barrier()  # type: ignore[no-untyped-call]
    np.savez("batches.npz", *arrays)


def test_jax_trains_on_each_batch_once_and_in_its_own_epoch(tmp_path: Path) -> None:
    copy_project(tmp_path)
    repository = Repository(tmp_path)
    repository.remove_other_models(["simple_cnn"])
    augmentation = "training.flip=alternating", "training.translate=2"
    repository.apply_params("epochs=3", "batch_size=4", "training.min_batches=0", *augmentation)
    for split, count in (("train", 40), ("validation", 8)):
        writer = SplitWriter(tmp_path / "data" / split, 32)
        writer.append(RANDOM.integers(0, 256, (count, 32, 32, 3), np.uint8), np.arange(count) % 10)
        writer.close()
    run_keras_script(ON_JAX.format(function="save_batches"), tmp_path)

    loader = BatchLoader(Split(tmp_path / "data/train"), 10, 4)
    loader.augment("alternating", 2)
    expected: list[np.ndarray] = []
    for epoch in range(3):
        loader.shuffle(0, epoch)
        expected.extend(array for batch in loader for array in batch)
    saved = np.load(tmp_path / "batches.npz").values()
    for number, arrays in enumerate(zip(saved, expected, strict=True)):
        np.testing.assert_array_equal(*arrays, f"{'xy'[number % 2]} of step {number // 2}")
