"""Test-time augmentation is part of the model file and needs nothing of this project."""

import json
import subprocess
import sys
import zipfile
from typing import Any

import pytest

from tests.repository import Repository, run_keras_script

# As the train stage does it, after training.
SAVE = """
import json
from pathlib import Path
from stages.common import params
from stages.training import model_file, optimizer, test_time_augmentation

trained = model_file.load(Path("models/fast94.keras"))  # averages 6 views itself
network = trained.get_layer(trained.name)
settings = params.load().model("fast94")
for views in (1, 2, 6):
    model = test_time_augmentation.average_views(network, views)
    optimizer.compile_for_saving(model, settings, steps=1)
    model_file.save(model, Path(f"views-{views}.keras"))
print(json.dumps(network.count_params()))
"""
LOAD = """
import json
import keras, numpy as np

x = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
results = {}
for views in (1, 2, 6):
    model = keras.models.load_model(f"views-{views}.keras")
    network = model if views == 1 else next(x for x in model.layers if x.name == model.name)

    def with_mirror_image(images):
        return (network(images) + network(images[:, :, ::-1])) / 2

    if views == 1:
        expected = network(x)
    elif views == 2:
        expected = with_mirror_image(x)
    else:
        upper_left, lower_right = padded[:, :32, :32], padded[:, 2:, 2:]
        shifted = with_mirror_image(upper_left) + with_mirror_image(lower_right)
        expected = with_mirror_image(x) / 2 + shifted / 4
    results[views] = {
        "difference": float(abs(model(x) - expected).numpy().max()),
        "parameters": model.count_params(),
        "optimizer": type(model.optimizer).__module__,
        "dtype": str(model.outputs[0].dtype),
    }
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def loaded(trained: Repository, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the models that average 1, 2 and 6 views do where this project is not."""
    folder = tmp_path_factory.mktemp("views")
    trained.check("cp", "-r", "models", "params.yaml", "stages", str(folder))
    assert run_keras_script(SAVE, folder) == 30_730
    for name in ("stages", "params.yaml"):
        trained.check("rm", "-r", str(folder / name))
    result = subprocess.run(
        [sys.executable, "-c", LOAD], cwd=folder, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    models: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return models


@pytest.mark.parametrize("views", ["1", "2", "6"])
def test_model_file_averages_views_without_this_project(loaded: dict[str, Any], views: str) -> None:
    model = loaded[views]
    assert model["difference"] < 1e-6
    assert model["parameters"] == 30_730
    assert model["optimizer"].startswith("keras.")
    assert model["dtype"] == "float32"


def test_training_saves_the_views_that_params_ask_for(trained: Repository) -> None:
    with zipfile.ZipFile(trained.path / "models/fast94.keras") as model:
        config = model.read("config.json").decode()
    assert "GetItem" in config  # only 6 views, as params.yaml says, are cut from padded images
