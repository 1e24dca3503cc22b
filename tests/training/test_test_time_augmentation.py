"""Test-time augmentation is part of the model file and needs nothing of this project."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from stages.common import params
from stages.common.quiet_keras import keras
from stages.training import model_file, optimizer, test_time_augmentation
from tests.params_edits import PARAMS
from tests.repository import Repository

LOAD = """
import json
import keras, numpy as np

x = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
model = {views: keras.models.load_model(f"{views}.keras") for views in (1, 2, 6)}

def with_mirror_image(images):
    return (model[1](images) + model[1](images[:, :, ::-1])) / 2

shifted = with_mirror_image(padded[:, :32, :32]) + with_mirror_image(padded[:, 2:, 2:])
expected = {1: model[1](x), 2: with_mirror_image(x), 6: with_mirror_image(x) / 2 + shifted / 4}
print(json.dumps({
    views: [
        float(abs(model[views](x) - expected[views]).numpy().max()),
        model[views].count_params(),
        type(model[views].optimizer).__module__.split(".")[0],
        str(model[views].outputs[0].dtype),
    ]
    for views in model
}))
"""


def test_model_file_averages_views_without_this_project(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense(10, activation="softmax")
    network = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten(), dense])
    settings = params.ModelParams(**PARAMS["training"] | PARAMS["models"]["fast94"])
    for views in (1, 2, 6):
        model = test_time_augmentation.average_views(network, views)
        optimizer.compile_for_saving(model, settings, steps=1)
        model_file.save(model, tmp_path / f"{views}.keras")
    output = subprocess.check_output([sys.executable, "-c", LOAD], cwd=tmp_path, text=True)
    expected = [pytest.approx(0, abs=1e-6), 30_730, "keras", "float32"]
    assert json.loads(output.splitlines()[-1]) == dict.fromkeys("126", expected)


def test_training_saves_the_views_that_params_ask_for(trained: Repository) -> None:
    with zipfile.ZipFile(trained.path / "models/fast94.keras") as model:
        config = model.read("config.json").decode()
    assert "GetItem" in config  # only 6 views, as params.yaml says, are cut from padded images
