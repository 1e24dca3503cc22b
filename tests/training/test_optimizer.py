"""Learning rates and updates are those that params.yaml describes."""

from typing import Any

import numpy as np
import pytest

from stages.common.params import ModelParams
from stages.common.quiet_keras import keras
from stages.training import optimizer
from tests.params_edits import PARAMS

CONSTANT = ModelParams(
    **PARAMS["training"]
    | PARAMS["models"]["simple_cnn"]
    | {"epochs": 1, "batch_size": 1, "learning_rate": 0.5}
    | {"fused_kernels": False, "optimizer": "sgd", "momentum": 0.0, "muon_lr_multiplier": 0.25}
    | {"muon_bias_lr_multiplier": 8.0}
)


def changed(**values: Any) -> ModelParams:
    """The parameters above with some changed."""
    return CONSTANT.model_copy(update=values)


def apply(settings: ModelParams, gradient: float, *names: str) -> list[float]:
    """How far one step moves variables of these names from 1."""
    variables = [keras.Variable([1.0], name=name) for name in names]
    gradients = [gradient * keras.ops.ones(1) for _ in names]
    optimizer.training_optimizer(settings, 100).apply(gradients, variables)
    return [1 - float(variable[0]) for variable in variables]


def test_learning_rate_follows_its_schedule() -> None:
    def rates(steps: list[float], **values: Any) -> list[float]:
        rate = optimizer.learning_rate(changed(**values), steps=100)
        return [float(rate(step)) for step in steps]  # type: ignore[operator]

    cosine = rates([0, 25, 62.5, 100], lr_schedule="cosine", warmup_fraction=0.25)
    assert cosine == pytest.approx([0, 0.5, 0.25, 0], abs=1e-6)
    assert rates([0, 12.5, 25, 100], warmup_fraction=0.25) == pytest.approx([0, 0.25, 0.5, 0.5])
    assert rates([0, 25, 100], lr_schedule="linear") == pytest.approx([0.5, 0.375, 0], abs=1e-6)
    assert optimizer.learning_rate(CONSTANT, steps=100) == 0.5


def test_muon_alone_multiplies_the_learning_rate_of_biases() -> None:
    names = ("kernel", "bias", "beta", "gamma")
    assert apply(CONSTANT, 1.0, *names) == pytest.approx([0.5] * 4)
    assert apply(changed(optimizer="adam"), 1.0, *names) == pytest.approx([0.5] * 4, rel=1e-4)
    assert apply(changed(optimizer="muon"), 1.0, *names) == pytest.approx([0.5, 4.0, 4.0, 0.5])


def test_weights_decay_by_the_learning_rate_times_weight_decay() -> None:
    assert apply(changed(weight_decay=0.1), 0.0, "kernel") == pytest.approx([0.1 * 0.5])


def test_weights_are_averaged_with_the_ema_decay() -> None:
    averaged = keras.Variable([1.0], name="kernel")
    averaging = optimizer.training_optimizer(changed(ema_decay=0.9), 100)
    for _ in range(2):
        averaging.apply([keras.ops.ones(1)], [averaged])
    averaging.finalize_variable_values([averaged])
    # Two steps of 0.5 lead from 1 to 0.5 and 0; the average weighs them 0.9 and 0.1.
    assert float(averaged[0]) == pytest.approx(0.9 * 0.5 + 0.1 * 0.0)


def test_muon_moves_a_convolution_equally_in_all_directions_of_its_gradients() -> None:
    start, *gradients = np.random.default_rng(0).normal(size=(3, 3, 3, 4, 8)).astype("float32")
    convolution = keras.Variable(start, name="kernel")
    muon = optimizer.training_optimizer(changed(optimizer="muon"), 100)
    moved = []
    for gradient in gradients:
        before = convolution.numpy().reshape(36, 8)
        muon.apply([keras.ops.array(gradient)], [convolution])
        scaled = before * 8**0.5 / np.linalg.norm(before)
        moved.append((scaled - convolution.numpy().reshape(36, 8)) / 0.125)  # 0.5 * 0.25
    singular_values = np.linalg.svd(moved, compute_uv=False)
    assert 0.6 < singular_values.min() < singular_values.max() < 1.3
    first, second = (gradient.reshape(36, 8) for gradient in gradients)
    left, _, right = np.linalg.svd(second + 0.6 * (second + 0.6 * first), full_matrices=False)
    in_directions = left.T @ moved[1] @ right.T
    assert abs(in_directions - np.diag(np.diag(in_directions))).max() < 1e-4
