"""The fingerprint of a training run differs if and only if its result may differ."""

from pathlib import Path

import pytest
import yaml

import stages
from stages import settings
from stages.training.fingerprint import fingerprint
from tests.params_edits import edited
from tests.repository import copy_project

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
    files = [f"{split}/{x}.npy" for split in ("train", "validation", "test") for x in "xy"]
    for name in (*files, "weights/imagenet/resnet50_notop.weights.h5"):
        file = tmp_path / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)  # only the checksum counts
    return tmp_path


def changed_fingerprint(change: str) -> str:
    """The fingerprint of simple_cnn after an edit of params.yaml, or of a file."""
    file = Path("params.yaml" if "=" in change else change)
    original = file.read_text()
    file.write_text(yaml.safe_dump(edited(change)) if "=" in change else f"{original}\n")
    settings.main()
    result = fingerprint("simple_cnn")
    file.write_text(original)
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
