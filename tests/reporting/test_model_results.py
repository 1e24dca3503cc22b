"""Reading a model's results: as they were written, and in one line what is damaged."""

import json
from pathlib import Path

import numpy as np
import pytest

from stages.common import paths
from stages.common.errors import StageError
from stages.reporting import model_results
from tests.reporting.results import model_result

EVALUATION = paths.EVALUATIONS / "cnn/evaluation.json"
PROBABILITIES = paths.EVALUATIONS / "cnn/probabilities.npy"
CURVES = paths.CURVES / "cnn/plots/metrics"
PROVENANCE = paths.PROVENANCE / "cnn.json"
WRITTEN = model_result("cnn", minutes=[0.5, 1.0])


@pytest.fixture(autouse=True)
def _results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The results of a model `cnn`, in the working directory."""
    monkeypatch.chdir(tmp_path)
    for folder in (EVALUATION.parent, CURVES, PROVENANCE.parent):
        folder.mkdir(parents=True)
    keys = model_results.Evaluation.model_fields
    EVALUATION.write_text(json.dumps({key: getattr(WRITTEN, key) for key in keys}))
    np.save(PROBABILITIES, WRITTEN.probabilities)
    for name, values in WRITTEN.curves.items():
        rows = "".join(f"{step}\t{value}\n" for step, value in enumerate(values))
        (CURVES / f"{name}.tsv").write_text(f"step\t{name}\n{rows}")
    write_provenance(WRITTEN.sha256)


def write_provenance(model_sha256: str) -> None:
    content = {"model_sha256": model_sha256, "epoch_seconds": [30, 30.0], "git_commit": None}
    PROVENANCE.write_text(json.dumps(content))


def test_results_are_read_as_they_were_written() -> None:
    result = model_results.read("cnn", WRITTEN.labels)
    assert np.array_equal(result.probabilities, WRITTEN.probabilities)
    for field in ("name", "classes", "accuracy", "loss", "parameters", "curves", "minutes"):
        assert getattr(result, field) == getattr(WRITTEN, field)


def test_training_time_of_another_model_file_counts_as_not_recorded() -> None:
    write_provenance("of another file")
    assert model_results.read("cnn", WRITTEN.labels).minutes == []
    PROVENANCE.unlink()
    assert model_results.read("cnn", WRITTEN.labels).minutes == []


@pytest.mark.parametrize("file", [EVALUATION, PROBABILITIES, CURVES / "val_loss.tsv"])
def test_damaged_result_is_named_in_one_line(file: Path) -> None:
    for damage, problem in (
        (lambda: file.write_bytes(b"not\na result"), "damaged: .+"),
        (file.unlink, "missing"),
    ):
        damage()
        with pytest.raises(StageError, match=f"^error: {file}: {problem}; run `dvc repro`"):
            model_results.read("cnn", WRITTEN.labels)
