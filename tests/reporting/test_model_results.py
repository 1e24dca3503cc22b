"""Reading a model's results: as they were written, and in one line what is damaged."""

import json
from pathlib import Path

import numpy as np
import pytest

from stages.common import paths
from stages.common.errors import StageError
from stages.reporting import model_results
from tests.reporting.results import model_result, write_results

FOLDER, CURVES = paths.EVALUATIONS / "cnn", paths.CURVES / "cnn/plots/metrics"
PROVENANCE = paths.PROVENANCE / "cnn.json"
WRITTEN = model_result("cnn", minutes=[0.5, 1.0])


@pytest.fixture(autouse=True)
def _results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The results of a model `cnn`, in the working directory."""
    monkeypatch.chdir(tmp_path)
    write_results(WRITTEN)


def test_results_are_read_as_they_were_written() -> None:
    result = model_results.read("cnn", WRITTEN.labels)
    assert np.array_equal(result.probabilities, WRITTEN.probabilities)
    for field in ("name", "classes", "accuracy", "loss", "parameters", "curves", "minutes"):
        assert getattr(result, field) == getattr(WRITTEN, field)


def test_training_time_of_another_model_file_counts_as_not_recorded() -> None:
    record = json.loads(PROVENANCE.read_text())
    PROVENANCE.write_text(json.dumps({**record, "model_sha256": "of another file"}))
    assert model_results.read("cnn", WRITTEN.labels).minutes == []
    PROVENANCE.unlink()
    assert model_results.read("cnn", WRITTEN.labels).minutes == []


@pytest.mark.parametrize(
    "file", [FOLDER / "evaluation.json", FOLDER / "probabilities.npy", CURVES / "val_loss.tsv"]
)
def test_damaged_result_is_named_in_one_line(file: Path) -> None:
    for damage, problem in (
        (lambda: file.write_bytes(b"not\na result"), "damaged: .+"),
        (file.unlink, "missing"),
    ):
        damage()
        with pytest.raises(StageError, match=f"^error: {file}: {problem}; run `dvc repro`"):
            model_results.read("cnn", WRITTEN.labels)
