"""A model's entry in params.yaml is checked against `build` in its architecture file."""

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from unittest.mock import patch

import numpy as np
import pytest

import stages.architectures
from stages.common import params
from stages.common.errors import StageError
from stages.dataset.splits import Split
from stages.training import network
from tests.params_edits import edited, invalid_edits
from tests.repository import ROOT

CNN = "models.simple_cnn"
SCRATCH = "models.resnet50_scratch"
SMALL = "models.small"  # the model whose architecture file a test writes
SMALL_FILE = "stages/architectures/dense.py"
INVALID_ARGUMENTS = {
    **invalid_edits(f"{CNN}.dropout", "-0.1"),
    **invalid_edits("models.resnet50_features.enlarge_to", "31"),
    **invalid_edits("models.resnet50_tuned.frozen", "0"),
    **invalid_edits(f"{SCRATCH}.stem_stride", "3"),
    f"{CNN}.dropout='0.5'": f"{CNN}.dropout: '0.5': ",
    f"{CNN}.images=0.1": f"{CNN}.images: 0.1: ",  # not of this `build`, and not for params.yaml
    "models.fast94.images=0.1": "models.fast94.images: 0.1: ",
    f"{CNN}.weights=imagenet": f"{CNN}.weights: 'imagenet': only 'random' is allowed, as `build`",
}


def build(signature: str, body: str = "pass") -> str:
    """An architecture file whose `build` has this signature."""
    return f"import keras\nfrom keras import layers\ndef build({signature}):\n    {body}\n"


def layers(content: str) -> str:
    """An architecture file whose `build` has no arguments and returns these layers."""
    return build("", f"return keras.Sequential([{content}])")


IMPORTED = f"{SMALL_FILE}: cannot be imported: "
SHAPE = "keras.Input((32, 32, 3))"
# An architecture file, what its entry adds to the usual keys, and the error.
INVALID_ARCHITECTURES = (
    ("def build(:\n", "", f"{IMPORTED}line 1: SyntaxError: "),
    ("\0", "", IMPORTED),
    ("\nimport nothing\n", "", f"{IMPORTED}line 2: ModuleNotFoundError: "),
    ("import sys\nsys.exit(3)\n", "", f"{IMPORTED}line 2: SystemExit: 3; correct it"),
    ("raise ValueError('\\x1b' * 10**6)\n", "", f"{IMPORTED}line 1: ValueError: ????"),
    ("build = 3\n", "", f"{SMALL_FILE}: has no function `build`"),
    (build("*, width: int"), "", f"{SMALL}.width: missing; see `build` in {SMALL_FILE}"),
    (build(""), "width: 8", f"{SMALL}.width: 8: Extra inputs are not permitted; see `build` in "),
    (build("*, width: int"), "width: 8.5", f"{SMALL}.width: 8.5: Input should be a valid integer"),
    (f"from __future__ import annotations\n{build('*, width: int')}", "width: '8'", "width: '8': "),
    (layers("layers.Dense()"), "", "small: the network could not be built: line 4: TypeError: "),
    (build("", "exit(3)"), "", "small: the network could not be built: line 4: SystemExit: 3; see"),
    (layers("layers.Dense(10)"), "", f"{SMALL_FILE}: `build` must return a Keras model from keras"),
    (layers(f"{SHAPE}, layers.Flatten(), layers.Dense(9)"), "", "(None, 32, 32, 3) and (None, 9)"),
    (build(""), "", "not NoneType with the shapes None and None; correct it"),
    (
        layers(f"{SHAPE}, layers.Flatten(), layers.Dense(10, bias_initializer='ones')"),
        "",
        f"{SMALL_FILE}: `build` must return a model of probabilities, float32 numbers from 0 to 1 "
        "with the sum 1, not float32 numbers from 1 to 1 with the sum 10; let its last layer be a",
    ),
)
VALID_ARCHITECTURES = (
    (build("width: float"), "width: 8"),
    (build("*, width: int | None = None"), ""),
    (build("*, width"), "width: wide"),
    (build("*, json: int, model_config: int, _hidden: int = 3"), "json: 1, model_config: 1"),
    (build("*, weights"), "weights: imagenet"),
    (build("*, images, classes, input_shape"), ""),
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the project's architectures and one that a test writes."""
    folder = tmp_path / "stages/architectures"
    shutil.copytree(ROOT / "stages/architectures", folder)
    monkeypatch.setattr(
        stages.architectures, "__path__", [*stages.architectures.__path__, str(folder)]
    )
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # the file changes within a second
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(edit: str, architecture: str = "", images: Split | None = None) -> str | None:
    """The error of a model's entry, None if it is accepted; builds `small` if there are images."""
    sys.modules.pop("stages.architectures.dense", None)
    Path(SMALL_FILE).write_text(architecture)
    try:
        with patch.object(params, "read_yaml", return_value=edited(edit)):
            settings = params.load()
        network.check_arguments(settings)
        if images:
            network.build("small", settings, images, classes=10)
    except StageError as error:
        message = str(error)
        assert message.isprintable()
        assert len(message) < 600
        return message
    return None


def black_images() -> Split:
    """Images to build a network for."""

    def images(rows: np.ndarray) -> np.ndarray:
        return np.zeros((len(rows), 32, 32, 3), np.uint8)

    return cast(Split, SimpleNamespace(image_shape=(32, 32, 3), images=images))


def entry(arguments: str) -> str:
    """An edit that adds the model `small`, of the architecture `dense`."""
    shared = "architecture: dense, weights: random, learning_rate: 0.1"
    return f"{SMALL}={{{shared}, {arguments}}}"


@pytest.mark.usefixtures("project")
def test_invalid_argument_of_build_is_refused_with_its_key() -> None:
    assert check("seed=0") is None
    for edit, expected in INVALID_ARGUMENTS.items():
        assert cast(str, check(edit)).startswith(f"error: params.yaml: {expected}"), edit


@pytest.mark.usefixtures("project")
def test_architecture_that_does_not_fit_its_entry_is_refused_with_the_line() -> None:
    images = black_images()
    for architecture, arguments, expected in INVALID_ARCHITECTURES:
        assert expected in cast(str, check(entry(arguments), architecture, images)), architecture
    fitting = layers(f"{SHAPE}, layers.Flatten(), layers.Dense(10, 'softmax')")
    assert check(entry(""), fitting, images) is None


@pytest.mark.usefixtures("project")
def test_probabilities_of_a_nested_model_are_float32_in_mixed_precision() -> None:
    classifier = "keras.Sequential([keras.Input((3072,)), layers.Dense(10, 'softmax')])"
    nested = layers(f"{SHAPE}, layers.Flatten(), {classifier}")
    assert check(entry("precision: mixed_bfloat16"), nested, black_images()) is None
    assert check(entry(""), nested, black_images()) is None  # and Keras' policy is float32 again


@pytest.mark.usefixtures("project")
def test_architecture_that_fits_its_entry_is_accepted() -> None:
    for architecture, arguments in VALID_ARCHITECTURES:
        assert check(entry(arguments), architecture) is None, architecture
