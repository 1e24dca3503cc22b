"""Test-time augmentation is part of the model file and needs nothing of this project."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repository import Repository

SCRIPT = """
import json, sys
import keras, numpy as np

path, views = sys.argv[1], int(sys.argv[2])
model = keras.models.load_model(path)
network = model if views == 1 else next(x for x in model.layers if x.name == model.name)
x = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")


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
print(json.dumps({
    "difference": float(abs(model(x) - expected).numpy().max()),
    "parameters": model.count_params(),
    "optimizer": type(model.optimizer).__module__,
    "dtype": str(model.outputs[0].dtype),
}))
"""


@pytest.mark.parametrize("views", [1, 2, 6])
def test_model_file_averages_views_without_this_project(
    clone: Repository, tmp_path: Path, views: int
) -> None:
    clone.set_params(f"models.fast94.tta_views={views}")
    clone.check(sys.executable, "-m", "stages.train", "fast94")
    model = str(clone.path / "models/fast94.keras")
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, model, str(views)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    loaded = json.loads(result.stdout.splitlines()[-1])
    assert loaded["difference"] < 1e-6
    assert loaded["parameters"] == 30_730
    assert loaded["optimizer"].startswith("keras.")
    assert loaded["dtype"] == "float32"
