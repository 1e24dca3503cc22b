"""The networks themselves, built and trained for a batch by Keras."""

from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import yaml

from stages.architectures import fast94, resnet50_finetune, resnet50_imagenet, resnet50_scratch
from stages.common.quiet_keras import keras
from stages.training import batch_normalization
from tests.repository import ROOT

DATA: dict[str, Any] = {"input_shape": (32, 32, 3), "classes": 10}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "simple_cnn": {"dropout": 0.5},
    "complex_cnn": {"dropout": 0.5},
    "resnet50_scratch": {"stem_stride": 4},
    "resnet50_finetune": {"weights": None},
    "resnet50_imagenet": {"weights": None, "enlarge_to": 32, "frozen": False, "dropout": 0.5},
    "fast94": {},
}


def random_images(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).random((count, size, size, 3), np.float32)


def test_every_architecture_has_an_entry_in_params() -> None:
    models = yaml.safe_load((ROOT / "params.yaml").read_text())["models"]
    files = {path.stem for path in (ROOT / "stages/architectures").glob("[!_]*.py")}
    assert files == {entry["architecture"] for entry in models.values()} == set(ARGUMENTS)


@pytest.mark.parametrize(
    ("name", "size", "classes", "parameters"),
    [
        ("simple_cnn", 32, 10, 42_442),
        ("complex_cnn", 32, 10, 98_378),
        ("resnet50_scratch", 32, 10, 23_608_202),
        ("resnet50_finetune", 32, 10, 23_608_202),
        ("resnet50_imagenet", 32, 10, 23_608_202),
        ("fast94", 32, 10, 1_973_920),
        ("simple_cnn", 64, 3, None),
        ("complex_cnn", 64, 3, None),
        ("fast94", 64, 3, None),
        ("resnet50_scratch", 128, 100, None),
        ("resnet50_finetune", 128, 100, None),
    ],
)
def test_network_of_these_images_has_the_documented_size_and_learns(
    name: str, size: int, classes: int, parameters: int | None
) -> None:
    keras.utils.set_random_seed(0)
    x, y = random_images(8, size), np.eye(classes)[np.arange(8) % classes]
    images = {"images": x} if name == "fast94" else {}
    build = import_module(f"stages.architectures.{name}").build
    model = build(input_shape=(size, size, 3), classes=classes, **ARGUMENTS[name], **images)
    assert parameters in (model.count_params(), None)
    assert model.input_shape == (None, size, size, 3)
    rates = [layer.rate for layer in model.layers if hasattr(layer, "rate")]
    assert rates == [value for key, value in ARGUMENTS[name].items() if key == "dropout"]
    model.compile(keras.optimizers.SGD(0.001), "categorical_crossentropy", run_eagerly=True)
    before = [weights.copy() for weights in model.get_weights()]
    assert 0 < model.train_on_batch(x, y) < 50
    changed = [not np.array_equal(*pair) for pair in zip(before, model.get_weights(), strict=True)]
    # A step changes every layer except fast94's whitening, but maybe not a bias before batch
    # normalization.
    assert np.mean(changed) > 0.7
    probabilities = np.asarray(model(x))
    assert probabilities.shape == (8, classes)
    assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-4)
    assert np.array_equal(probabilities, np.asarray(model(x, training=False)))


def test_whitening_of_fast94_decorrelates_patches() -> None:
    images = random_images(100, 8).cumsum(axis=1).cumsum(axis=2)  # with correlated pixels
    images = (images - images.mean((0, 1, 2))) / images.std((0, 1, 2))
    filters = fast94.whitening_filters(images, epsilon=0.0)
    assert filters.shape == (2, 2, 3, 24)
    patches = np.lib.stride_tricks.sliding_window_view(images, (2, 2), axis=(1, 2))
    patches = patches.transpose(0, 1, 2, 4, 5, 3).reshape(-1, 12)
    whitened = patches @ filters.reshape(12, 24)
    identity = np.eye(12)
    expected = np.block([[identity, -identity], [-identity, identity]])
    assert np.allclose(whitened.T @ whitened / len(whitened), expected, atol=1e-3)


def test_pretrained_networks_give_their_weights_images_in_0_1_or_as_for_imagenet(
    tmp_path: Path,
) -> None:
    keras.utils.set_random_seed(0)
    backbone = keras.applications.ResNet50(include_top=False, weights=None)
    backbone.save_weights(tmp_path / "backbone.weights.h5")
    images = random_images(2, 32)
    enlarged = np.asarray(keras.layers.Resizing(64, 64)(255 * images))
    caffe = keras.applications.resnet50.preprocess_input(enlarged.copy())
    arguments = {**DATA, "weights": tmp_path / "backbone.weights.h5"}
    for model, expected in (
        (resnet50_finetune.build(**arguments), np.asarray(backbone(images)).reshape(2, -1)),
        (
            resnet50_imagenet.build(**arguments, enlarge_to=64, frozen=True, dropout=0.5),
            np.asarray(backbone(caffe)).mean(axis=(1, 2)),
        ),
    ):
        features = np.asarray(keras.Sequential(model.layers[:-1])(images, training=False))
        assert np.allclose(features, expected, rtol=1e-3, atol=1e-3 * expected.max())


def test_only_the_dense_layer_of_the_frozen_imagenet_network_is_trained() -> None:
    data = {**DATA, "input_shape": (48, 48, 3)}
    model = resnet50_imagenet.build(**data, weights=None, enlarge_to=32, frozen=True, dropout=0.5)
    features, _, dense = model.layers
    assert features.layers[-1].input_shape == (None, 48, 48, 3)  # larger images stay as they are
    trained = [variable.path for variable in model.trainable_variables]
    assert trained == [variable.path for variable in dense.variables]
    assert batch_normalization.layers(model) == []


@pytest.mark.parametrize(("stride", "side"), [(2, 16), (1, 32)])
def test_smaller_stem_stride_keeps_larger_feature_maps(stride: Literal[1, 2], side: int) -> None:
    model = resnet50_scratch.build(**DATA, stem_stride=stride)
    assert model.layers[-2].output.shape == (None, side, side, 64)
    assert model.count_params() == 23_600_458
    assert model.output_shape == (None, 10)
