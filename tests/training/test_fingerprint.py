"""The fingerprint of a training run differs if and only if its result may differ."""

from pathlib import Path

import pytest
import yaml

import stages
from stages.common import params
from stages.training.fingerprint import code, fingerprint
from tests.params_edits import edited
from tests.repository import ROOT, copy_project

CNN = "models.simple_cnn"
CHANGES = f"""
    {CNN}.dropout=0.4 {CNN}.translate=2 {CNN}.optimizer=muon {CNN}.weights=imagenet
    {CNN}.architecture=complex_cnn training.label_smoothing=0.1 training.min_steps=500 epochs=7
    seed=1 data/train/x.npy data/validation/y.npy stages/__init__.py stages/train.py
    stages/dataset/augmentation.py stages/training/callbacks.py stages/architectures/simple_cnn.py
"""
UNRELATED_CHANGES = """
    models.complex_cnn.dropout=0.4 training.muon_momentum=0.5 validation_split=0.2 dataset=cifar100
    stages/architectures/complex_cnn.py stages/common/console.py stages/reporting/charts.py
    data/test/x.npy data/weights/imagenet/resnet50_notop.weights.h5
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the project's code and files in place of the arrays."""
    copy_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stages, "__file__", str(tmp_path / "stages/__init__.py"))
    files = [f"{split}/{x}.npy" for split in ("train", "validation", "test") for x in "xy"]
    for name in (*files, "weights/imagenet/resnet50_notop.weights.h5"):
        file = tmp_path / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)  # only the checksum counts
    return tmp_path


def changed_fingerprint(change: str) -> str:
    """The fingerprint of simple_cnn after an edit of params.yaml, or of a file."""
    if "=" in change:
        return fingerprint("simple_cnn", params.Params.model_validate(edited(change)))
    file = Path(change)
    original = file.read_bytes()
    file.write_bytes(original + b"\n")
    result = fingerprint("simple_cnn", params.load())
    file.write_bytes(original)
    return result


@pytest.mark.usefixtures("project")
def test_fingerprint_differs_if_and_only_if_the_result_may(monkeypatch: pytest.MonkeyPatch) -> None:
    unchanged = changed_fingerprint("seed=0")
    for change in CHANGES.split():
        assert changed_fingerprint(change) != unchanged, change
    for change in UNRELATED_CHANGES.split():
        assert changed_fingerprint(change) == unchanged, change
    monkeypatch.setitem(stages.ENVIRONMENT, "ONEDNN_MAX_CPU_ISA", "AVX2")
    assert changed_fingerprint("seed=0") != unchanged


def test_fingerprint_covers_the_code_that_dvc_tracks() -> None:
    train = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["train"]["do"]
    deps = [ROOT / dep.replace("${item.architecture}", "simple_cnn") for dep in train["deps"]]
    files = (ROOT / "stages").rglob("*.py")
    assert {x for x in files if any(x.is_relative_to(dep) for dep in deps)} == set(
        code("simple_cnn")
    )
