"""The networks themselves, built and trained for a batch by Keras."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.repository import ROOT, run_keras_script

BUILD_AND_TRAIN = """
import json
import numpy as np, keras
from stages.architectures import (
    complex_cnn, fast94, resnet50_finetune, resnet50_scratch, simple_cnn
)

keras.utils.set_random_seed(0)
backbone = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(32, 32, 3))
backbone.save_weights("backbone.weights.h5")
data = {"input_shape": (32, 32, 3), "classes": 10}
models = {
    "simple_cnn": simple_cnn.build(**data, dropout=0.5),
    "complex_cnn": complex_cnn.build(**data, dropout=0.5),
    "resnet50_scratch": resnet50_scratch.build(**data, stem_stride=4),
    "resnet50_finetune": resnet50_finetune.build(
        **data, weights="backbone.weights.h5", preprocessing="unit", enlargement=1
    ),
    "fast94": fast94.build(**data, images=np.random.rand(50, 32, 32, 3).astype("float32")),
}
loaded = models["resnet50_finetune"].layers[0].get_weights()
pretrained = all(map(np.array_equal, loaded, backbone.get_weights()))
x, y = np.random.rand(8, 32, 32, 3), np.eye(10)[:8]
properties = {}
for name, model in models.items():
    model.compile("adam", "categorical_crossentropy", run_eagerly=True)
    before = [weights.copy() for weights in model.get_weights()]
    loss = model.train_on_batch(x, y)
    changed = [not np.array_equal(a, b) for a, b in zip(before, model.get_weights())]
    properties[name] = {
        "parameters": model.count_params(),
        "changed": sum(changed) / len(changed),
        "loss": float(loss),
        "dropout": [layer.rate for layer in model.layers if hasattr(layer, "rate")],
        "sums": model.predict(x, verbose=0).sum(axis=1).tolist(),
    }
print(json.dumps({"pretrained": pretrained, "models": properties}))
"""

DETAILS = """
import json
import keras, numpy as np
from stages.architectures import fast94, resnet50_finetune, resnet50_scratch

random = np.random.default_rng(0)
data = {"input_shape": (32, 32, 3), "classes": 10}

# fast94: filters that are computed from images with correlated pixels
images = random.random((100, 8, 8, 3)).cumsum(axis=1).cumsum(axis=2).astype("float32")
images = (images - images.mean((0, 1, 2))) / images.std((0, 1, 2))
filters = fast94.whitening_filters(images, epsilon=0.0)
patches = np.lib.stride_tricks.sliding_window_view(images, (2, 2), axis=(1, 2))
patches = patches.transpose(0, 1, 2, 4, 5, 3).reshape(-1, 12)
whitened = patches @ filters.reshape(12, 24)

# resnet50_finetune: what its backbone gets and gives
keras.utils.set_random_seed(0)
backbone = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(32, 32, 3))
backbone.save_weights("backbone.weights.h5")
images = random.random((2, 32, 32, 3), np.float32)
settings = {**data, "weights": "backbone.weights.h5", "preprocessing": "caffe"}
features = keras.Sequential(resnet50_finetune.build(**settings, enlargement=1).layers[:-1])(images)
prepared = keras.applications.resnet50.preprocess_input(255 * images)
expected, unprepared = (keras.ops.reshape(backbone(x), (2, -1)) for x in (prepared, images))
large = resnet50_finetune.build(**settings, enlargement=2)

# resnet50_scratch: stems for small images
stems = {stride: resnet50_scratch.build(**data, stem_stride=stride) for stride in (2, 1)}

print(json.dumps({
    "filters": filters.shape,
    "covariance": (whitened.T @ whitened / len(whitened)).tolist(),
    "caffe": bool(np.allclose(features, expected, rtol=1e-3, atol=1e-3)),
    "unit": bool(np.allclose(features, unprepared, atol=0.01)),
    "sums": np.asarray(large(images)).sum(axis=1).tolist(),
    "kernel": list(large.layers[-1].kernel.shape),
    "stems": {
        stride: [model.layers[-2].output.shape, model.count_params(), model.output_shape]
        for stride, model in stems.items()
    },
}))
"""

BUILD_FOR_OWN_IMAGES = """
import json
import numpy as np, keras
from stages.architectures import (
    complex_cnn, fast94, resnet50_finetune, resnet50_scratch, simple_cnn
)

results = []
for size, classes in ((32, 2), (64, 3), (128, 100)):
    keras.utils.set_random_seed(0)
    data = {"input_shape": (size, size, 3), "classes": classes}
    x, y = np.random.rand(4, size, size, 3).astype("float32"), np.eye(classes)[[0, 1, -1, 0]]
    models = [
        simple_cnn.build(**data, dropout=0.5),
        complex_cnn.build(**data, dropout=0.5),
        fast94.build(**data, images=x),
    ]
    if size == 128:  # only there, as they take seconds
        models += [
            resnet50_scratch.build(**data, stem_stride=4),
            resnet50_finetune.build(**data, weights=None, preprocessing="caffe", enlargement=1),
        ]
    for model in models:
        model.compile(keras.optimizers.SGD(0.001), "categorical_crossentropy", run_eagerly=True)
        before = [weights.copy() for weights in model.get_weights()]
        loss = model.train_on_batch(x, y)
        changed = [not np.array_equal(a, b) for a, b in zip(before, model.get_weights())]
        probabilities = np.asarray(model(x))
        results.append({
            "network": f"{model.name} of {size} pixels and {classes} classes",
            "shape": [model.input_shape, probabilities.shape],
            "expected": [(None, size, size, 3), (len(x), classes)],
            "sums": probabilities.sum(axis=1).tolist(),
            "changed": sum(changed) / len(changed),
            "loss": float(loss),
        })
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Properties of the networks, each trained for one batch."""
    properties: dict[str, Any] = run_keras_script(BUILD_AND_TRAIN, tmp_path_factory.mktemp("built"))
    return properties


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
def test_network_has_the_documented_size_and_learns(
    built: dict[str, Any], model: str, parameters: int
) -> None:
    properties = built["models"][model]
    assert properties["parameters"] == parameters
    assert properties["dropout"] == ([0.5] if "cnn" in model else [])
    assert all(abs(total - 1) < 1e-5 for total in properties["sums"])
    # A step changes every layer except fast94's whitening, but maybe not a bias before batch
    # normalization.
    assert properties["changed"] > 0.7
    assert 0 < properties["loss"] < 50


def test_networks_take_images_of_every_size_and_any_number_of_classes(tmp_path: Path) -> None:
    results = run_keras_script(BUILD_FOR_OWN_IMAGES, tmp_path)
    assert len(results) == 11
    for result in results:
        assert result["shape"] == result["expected"], result["network"]
        assert result["sums"] == pytest.approx([1] * 4, abs=1e-4), result["network"]
        assert result["changed"] > 0.7, result["network"]
        assert 0 < result["loss"] < 50, result["network"]


def test_finetuned_network_starts_from_the_given_weights(built: dict[str, Any]) -> None:
    assert built["pretrained"]


def test_every_architecture_has_an_entry_in_params() -> None:
    models = yaml.safe_load((ROOT / "params.yaml").read_text())["models"]
    files = {path.stem for path in (ROOT / "stages/architectures").glob("[!_]*.py")}
    assert files == set(models)


@pytest.fixture(scope="module")
def details(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the options of the networks change, computed in one process."""
    results: dict[str, Any] = run_keras_script(DETAILS, tmp_path_factory.mktemp("details"))
    return results


def test_whitening_decorrelates_patches(details: dict[str, Any]) -> None:
    assert details["filters"] == [2, 2, 3, 24]
    identity = np.eye(12)
    expected = np.block([[identity, -identity], [-identity, identity]])
    assert np.allclose(details["covariance"], expected, atol=1e-3)


def test_caffe_preprocessing_gives_the_images_that_the_weights_expect(
    details: dict[str, Any],
) -> None:
    assert details["caffe"]
    assert not details["unit"]


def test_enlarged_images_give_more_features(details: dict[str, Any]) -> None:
    assert details["sums"] == pytest.approx([1, 1], abs=1e-5)
    assert details["kernel"] == [4 * 2048, 10]


def test_smaller_stem_stride_keeps_larger_feature_maps(details: dict[str, Any]) -> None:
    assert details["stems"] == {
        "2": [[None, 16, 16, 64], 23_600_458, [None, 10]],
        "1": [[None, 32, 32, 64], 23_600_458, [None, 10]],
    }
