"""The networks themselves, built and trained for a batch by Keras."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, in_keras

BUILD_AND_TRAIN = """
import json
import numpy as np, keras
from stages.architectures import (
    complex_cnn, fast94, resnet50_finetune, resnet50_scratch, simple_cnn
)

keras.utils.set_random_seed(0)
backbone = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(32, 32, 3))
backbone.save_weights("backbone.weights.h5")
models = {
    "simple_cnn": simple_cnn.build(dropout=0.5),
    "complex_cnn": complex_cnn.build(dropout=0.5),
    "resnet50_scratch": resnet50_scratch.build(stem_stride=4),
    "resnet50_finetune": resnet50_finetune.build(
        weights="backbone.weights.h5", preprocessing="unit", input_size=32
    ),
    "fast94": fast94.build(pictures=np.random.rand(50, 32, 32, 3).astype("float32")),
}
loaded = models["resnet50_finetune"].layers[0].get_weights()
same = all(map(np.array_equal, loaded, backbone.get_weights()))
x, y = np.random.rand(8, 32, 32, 3), np.eye(10)[:8]
facts = {}
for name, model in models.items():
    model.compile("adam", "categorical_crossentropy", run_eagerly=True)
    before = [weights.copy() for weights in model.get_weights()]
    loss = model.train_on_batch(x, y)
    moved = sum(not np.array_equal(a, b) for a, b in zip(before, model.get_weights()))
    facts[name] = {
        "parameters": model.count_params(),
        "untrained": len(model.non_trainable_variables),
        "moved": moved / len(before),
        "loss": float(loss),
        "dropout": [layer.rate for layer in model.layers if hasattr(layer, "rate")],
        "sums": model.predict(x, verbose=0).sum(axis=1).tolist(),
    }
print(json.dumps({"same": same, "facts": facts}))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    facts: dict[str, Any] = in_keras(BUILD_AND_TRAIN, tmp_path_factory.mktemp("built"))
    return facts


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("simple_cnn", 42_442),
        ("complex_cnn", 98_378),
        ("resnet50_scratch", 23_608_202),
        ("resnet50_finetune", 23_608_202),
        ("fast94", 1_973_920),
    ],
)
def test_a_network_is_as_described(built: dict[str, Any], model: str, parameters: int) -> None:
    facts = built["facts"][model]
    assert facts["parameters"] == parameters
    assert facts["dropout"] == ([0.5] if "cnn" in model else [])
    assert all(abs(total - 1) < 1e-5 for total in facts["sums"])
    # One step moves every layer: nothing is frozen but fast94's whitening. (A bias behind batch
    # normalisation may stay.)
    assert facts["moved"] > 0.7
    assert 0 < facts["loss"] < 50


def test_the_finetuned_network_starts_from_the_given_weights(built: dict[str, Any]) -> None:
    assert built["same"]


def test_every_architecture_has_an_entry_in_params() -> None:
    models = yaml.safe_load((ROOT / "params.yaml").read_text())["models"]
    files = {path.stem for path in Path(ROOT / "stages/architectures").glob("[!_]*.py")}
    assert files == set(models)
