"""The fingerprint of a training run differs if and only if its result may differ."""

import json

import pytest
import yaml

from tests.repository import ROOT, copy_project, run_keras_script

CHANGES = {
    "dropout": "models.simple_cnn.dropout=0.4",
    "epochs": "epochs=7",
    "seed": "seed=1",
    "training parameter": "training.label_smoothing=0.1",
    "training parameter of the model": "models.simple_cnn.translate=2",
    "initial weights": "models.simple_cnn.weights=imagenet",
    "file in stages/dataset": "stages/dataset/augmentation.py",
    "file in stages/training": "stages/training/callbacks.py",
    "train stage": "stages/train.py",
    "TensorFlow's settings": "stages/__init__.py",
    "architecture": "stages/architectures/simple_cnn.py",
    "training images": "data/train/x.npy",
    "validation labels": "data/validation/y.npy",
}
UNRELATED_CHANGES = {
    "another model's dropout": "models.complex_cnn.dropout=0.4",
    "another architecture": "stages/architectures/complex_cnn.py",
    "test images": "data/test/x.npy",
    "weights of ResNet50": "data/weights/imagenet/resnet50_notop.weights.h5",
    "file in stages/common": "stages/common/console.py",
    "file in stages/reporting": "stages/reporting/charts.py",
}
SCRIPT = """
import json, os, shutil
os.environ.setdefault("KERAS_BACKEND", "numpy")  # faster to import
from pathlib import Path
import stages
from stages.common import params
from stages.training.fingerprint import code, fingerprint
from tests.repository import Repository

def current():
    return fingerprint("simple_cnn", params.load())

fingerprints = {"unchanged": current(), "unchanged again": current()}
for change in json.loads(Path("changes.json").read_text()):
    file = Path("params.yaml" if "=" in change else change)
    original = file.read_bytes()
    if "=" in change:
        Repository(Path()).set_params(change)
    else:
        file.write_bytes(original + b"\\n")
    fingerprints[change] = current()
    file.write_bytes(original)
stages.ENVIRONMENT["ONEDNN_MAX_CPU_ISA"] = "AVX2"
fingerprints["environment"] = current()
files = [str(file.relative_to(Path.cwd())) for file in code("simple_cnn")]
print(json.dumps({"fingerprints": fingerprints, "code": files}))
"""


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """The fingerprint after each change, and the code files it covers."""
    folder = tmp_path_factory.mktemp("project")
    copy_project(folder)
    changes = [*CHANGES.values(), *UNRELATED_CHANGES.values()]
    for split in ("train", "validation", "test"):
        (folder / "data" / split).mkdir(parents=True)
        for name in ("x.npy", "y.npy"):  # only their checksums count
            (folder / "data" / split / name).write_text(f"{split} {name}")
    weights = folder / "data/weights/imagenet/resnet50_notop.weights.h5"
    weights.parent.mkdir(parents=True)
    weights.write_text("weights")
    (folder / "changes.json").write_text(json.dumps(changes))
    files: dict[str, dict[str, str]] = run_keras_script(SCRIPT, folder)
    return files


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_fingerprint_differs_after_a_change_of(
    result: dict[str, dict[str, str]], change: str
) -> None:
    assert result["fingerprints"][change] != result["fingerprints"]["unchanged"]


@pytest.mark.parametrize("change", UNRELATED_CHANGES.values(), ids=UNRELATED_CHANGES)
def test_fingerprint_is_independent_of(result: dict[str, dict[str, str]], change: str) -> None:
    assert result["fingerprints"][change] == result["fingerprints"]["unchanged"]


def test_fingerprint_differs_with_other_settings_of_libraries(
    result: dict[str, dict[str, str]],
) -> None:
    assert result["fingerprints"]["environment"] != result["fingerprints"]["unchanged"]


def test_fingerprint_covers_the_code_that_dvc_tracks(result: dict[str, dict[str, str]]) -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    deps = [ROOT / dep.replace("${key}", "simple_cnn") for dep in stages["train"]["do"]["deps"]]
    code = [ROOT / file for file in result["code"]]
    assert {
        file
        for file in (ROOT / "stages").rglob("*.py")
        if any(file.is_relative_to(dep) for dep in deps)
    } == set(code)
