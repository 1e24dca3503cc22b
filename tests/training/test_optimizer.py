"""Learning rates and updates are those that params.yaml describes."""

from pathlib import Path

import numpy as np
import pytest

from tests.repository import run_keras_script

SCRIPT = """
import json, keras
import numpy as np
from stages.common.params import ModelParams
from stages.training import optimizer

cosine = ModelParams(
    epochs=1, batch_size=1, validation_share=1.0, precision="float32", fused_kernels=False,
    optimizer="sgd", momentum=0.0, muon_lr_multiplier=0.25, muon_momentum=0.6, weight_decay=0.1,
    bias_lr_multiplier=8.0, lr_schedule="cosine", warmup_fraction=0.25, label_smoothing=0.0,
    ema_decay=0.0, flip="none", translate=0, frozen_batch_norm_epochs=0, tta_views=1,
    weights="random", learning_rate=0.5,
)
constant_after_warmup = cosine.model_copy(update={"lr_schedule": "constant"})
constant = constant_after_warmup.model_copy(update={"warmup_fraction": 0.0})
linear = constant.model_copy(update={"lr_schedule": "linear"})
cosine_rate, warmup_rate, constant_rate, linear_rate = (
    optimizer.learning_rate(settings, steps=100)
    for settings in (cosine, constant_after_warmup, constant, linear)
)

steps = {}
for name in ("sgd", "adam", "muon"):
    settings = constant.model_copy(update={"optimizer": name, "weight_decay": 0.0})
    kernel = keras.Variable([1.0], name="kernel")
    bias = keras.Variable([1.0], name="bias")
    ones = [keras.ops.ones(1), keras.ops.ones(1)]
    optimizer.training_optimizer(settings, 100).apply(ones, [kernel, bias])
    steps[name] = [1 - float(kernel[0]), 1 - float(bias[0])]

decayed = keras.Variable([1.0], name="kernel")
optimizer.training_optimizer(constant, 100).apply([keras.ops.zeros(1)], [decayed])

averaged = keras.Variable([1.0], name="kernel")
settings = constant.model_copy(update={"ema_decay": 0.9, "weight_decay": 0.0})
averaging = optimizer.training_optimizer(settings, 100)
for _ in range(2):
    averaging.apply([keras.ops.ones(1)], [averaged])
averaging.finalize_variable_values([averaged])

random = np.random.default_rng(0)
start, *gradients = random.normal(size=(3, 3, 3, 4, 8)).astype("float32")
convolution = keras.Variable(start, name="kernel")
muon = optimizer.training_optimizer(constant.model_copy(update={"optimizer": "muon"}), 100)
scaled, moved = [], []
for gradient in gradients:
    before = np.array(convolution).reshape(36, 8)
    muon.apply([keras.ops.array(gradient)], [convolution])
    scaled.append(before * 8**0.5 / np.linalg.norm(before))
    moved.append((scaled[-1] - np.array(convolution).reshape(36, 8)) / 0.125)
first, second = (gradient.reshape(36, 8) for gradient in gradients)
left, _, right = np.linalg.svd(second + 0.6 * (second + 0.6 * first), full_matrices=False)

print(json.dumps({
    "muon's singular values": np.linalg.svd(moved, compute_uv=False).tolist(),
    "muon off its direction": float(np.abs(
        (off := left.T @ moved[1] @ right.T) - np.diag(np.diag(off))
    ).max()),
    "linear": [float(linear_rate(step)) for step in (0, 25, 100)],
    "cosine": [float(cosine_rate(step)) for step in (0, 25, 62.5, 100)],
    "constant after warm-up": [float(warmup_rate(step)) for step in (0, 12.5, 25, 100)],
    "constant": constant_rate,
    "steps": steps,
    "decayed": float(decayed[0]),
    "averaged": float(averaged[0]),
}))
"""


def test_optimizers_follow_the_training_parameters(tmp_path: Path) -> None:
    result = run_keras_script(SCRIPT, tmp_path)
    assert result["cosine"] == pytest.approx([0, 0.5, 0.25, 0], abs=1e-6)
    assert result["constant after warm-up"] == pytest.approx([0, 0.25, 0.5, 0.5], abs=1e-6)
    assert result["constant"] == 0.5
    assert result["linear"] == pytest.approx([0.5, 0.375, 0], abs=1e-6)
    # The kernel moves by the learning rate, the bias by 8 times as much.
    assert result["steps"]["sgd"] == pytest.approx([0.5, 4.0])
    assert result["steps"]["adam"] == pytest.approx([0.5, 4.0], rel=1e-4)
    assert result["steps"]["muon"] == result["steps"]["sgd"]  # neither is a convolution's
    assert result["decayed"] == pytest.approx(1 - 0.1 * 0.5)
    # Two steps of 0.5 lead from 1 to 0.5 and 0; the average weighs them 0.9 and 0.1.
    assert result["averaged"] == pytest.approx(0.9 * 0.5 + 0.1 * 0.0)
    # A convolution moves by about its learning rate in all directions of its gradients.
    singular_values = np.array(result["muon's singular values"])
    assert singular_values.shape == (2, 8)
    assert 0.6 < singular_values.min() < singular_values.max() < 1.3
    assert result["muon off its direction"] < 1e-4
