"""Fused kernels compute what Keras' layers compute, and leave a plain Keras model behind."""

from pathlib import Path

import pytest

from tests.repository import run_keras_script

# One step of plain SGD with learning rate 1 shows all gradients.
SCRIPT = """
import json
import keras, numpy as np
from contextlib import nullcontext
from keras import layers
from stages.training.fused_kernels import FusedAdam, fused_layers

random = np.random.default_rng(0)
x = random.normal(2, 3, (64, 8, 8, 3)).astype("float32")
y = np.eye(4, dtype="float32")[random.integers(0, 4, 64)]

def train(policy, kernels):
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(0)
    inner = keras.Sequential([keras.Input((8, 8, 5)), layers.BatchNormalization(scale=False)])
    frozen = layers.BatchNormalization(trainable=False)
    model = keras.Sequential([
        keras.Input((8, 8, 3)),
        layers.Conv2D(5, 3, activation="gelu", padding="same"),
        inner,
        layers.Activation("gelu"),
        layers.Conv2D(6, 3),
        layers.BatchNormalization(center=False, momentum=0.6, epsilon=1e-12),
        frozen,
        layers.Flatten(),
        layers.Dense(4),
        layers.BatchNormalization(),  # of no image: not fused
        layers.Softmax(dtype="float32"),
    ])
    model.compile(keras.optimizers.SGD(1.0), "categorical_crossentropy")
    before, names = model.get_weights(), [variable.path for variable in model.variables]
    with kernels(model):
        loss = float(model.train_on_batch(x, y))
        training = [type(layer).__name__ for layer in model._flatten_layers()]
    assert [variable.path for variable in model.variables] == names
    model.save("model.keras")  # would fail to load if it named classes of the project
    saved = keras.models.load_model("model.keras")
    assert np.array_equal(saved.predict(x, verbose=0), model.predict(x, verbose=0))
    steps = [after - start for after, start in zip(model.get_weights(), before)]
    return loss, steps, training.count("FusedBatchNormalization")

differences, fused = {}, {}
for policy in ("float32", "mixed_bfloat16"):
    (loss, steps, _), (fused_loss, fused_steps, fused[policy]) = (
        train(policy, kernels) for kernels in (lambda model: nullcontext(), fused_layers)
    )
    assert all(step.any() for step in steps[:6])
    size = max(float(abs(step).max()) for step in steps)
    difference = max(float(abs(a - b).max()) for a, b in zip(steps, fused_steps))
    differences[policy] = [abs(loss - fused_loss), difference / size]

adam = []
for optimizer in (keras.optimizers.Adam(0.01, beta_1=0.8), FusedAdam(0.01, beta_1=0.8)):
    kernel = keras.Variable(np.ones((20, 30)), dtype="float32")
    optimizer.build([kernel])
    for seed in range(5):
        gradient = np.random.default_rng(seed).normal(size=(20, 30)).astype("float32")
        optimizer.apply([keras.ops.array(gradient)])
    adam.append(np.array(kernel))
moved, off = abs(1 - adam[0]).max(), abs(adam[0] - adam[1]).max()
print(json.dumps({"differences": differences, "fused": fused, "adam": float(off / moved)}))
"""


def test_fused_kernels_train_like_keras_layers_and_leave_none_behind(tmp_path: Path) -> None:
    result = run_keras_script(SCRIPT, tmp_path)
    # Three of images, one of them frozen, and one of vectors.
    assert result["fused"] == {"float32": 4, "mixed_bfloat16": 4}
    assert result["differences"]["float32"] == pytest.approx([0, 0], abs=1e-5)
    assert result["adam"] < 1e-5
    assert result["differences"]["mixed_bfloat16"] == pytest.approx([0, 0], abs=0.03)
