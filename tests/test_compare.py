"""The comparison's results, recomputed from what the evaluations wrote."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from stages.dataset.classes import CLASSES
from tests.repository import MODELS, Repository


def test_report_page_and_json_agree_with_the_evaluations(trained: Repository) -> None:
    labels = np.load(trained.path / "data/test/y.npy").argmax(axis=1)
    evaluations = trained.path / "data/evaluations"
    correct = {
        model: np.load(evaluations / model / "probabilities.npy").argmax(axis=1) == labels
        for model in MODELS
    }
    comparison = json.loads((trained.path / "metrics/comparison.json").read_text())
    report = (trained.path / "metrics/report.md").read_text()
    page = (trained.path / "metrics/report.html").read_text()
    for model in MODELS:
        accuracy = correct[model].mean()
        numbers = comparison["models"][model]
        assert numbers["accuracy"] == pytest.approx(accuracy)
        assert numbers["interval"][0] < accuracy < numbers["interval"][1]
        assert numbers["top2_accuracy"] >= numbers["accuracy"]
        for label, name in enumerate(CLASSES):
            class_accuracy = correct[model][labels == label].mean()
            assert numbers["class_accuracies"][name] == pytest.approx(class_accuracy)
        for text in (report, page):
            assert f"{accuracy:.2%}" in text
    first, second = (correct[model] for model in MODELS[:2])
    assert comparison["pairs"][0] == {
        "first": MODELS[0],
        "second": MODELS[1],
        "only_first": (first & ~second).sum(),
        "only_second": (second & ~first).sum(),
        "p_value": comparison["pairs"][0]["p_value"],
    }
    missed_by_all = (~np.any(list(correct.values()), axis=0)).sum()
    assert f"<p>{missed_by_all} of {len(labels)} test images" in page


def test_report_and_page_of_the_sample_claim_nothing_about_real_images(
    trained: Repository,
) -> None:
    report = (trained.path / "metrics/report.md").read_text()
    page = (trained.path / "metrics/report.html").read_text()
    for text in (report, page):
        assert "The images are generated and nothing was pretrained" in text
    assert "notebook" not in report  # its accuracies are those on CIFAR-10
    assert "imagenet" not in page  # the sample's weights are random


def read_table(path: Path, delimiter: str) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def test_learning_curves_table_contains_the_curves_of_all_models(trained: Repository) -> None:
    metrics = trained.path / "metrics"
    rows = read_table(metrics / "learning_curves.csv", ",")
    assert list(rows[0]) == ["model", "split", "epoch", "accuracy", "loss"]
    assert [(row["model"], row["split"], row["epoch"]) for row in rows] == [
        (model, split, "1") for model in MODELS for split in ("training", "validation")
    ]
    prefixes = {"training": "train", "validation": "val"}
    for row in rows:
        for quantity in ("accuracy", "loss"):
            name = f"{prefixes[row['split']]}_{quantity}"
            curve = read_table(metrics / f"curves/{row['model']}/plots/metrics/{name}.tsv", "\t")
            assert float(row[quantity]) == float(curve[0][name])


def test_training_time_of_another_model_file_is_not_shown(clone: Repository) -> None:
    page = clone.path / "metrics/report.html"
    assert "not recorded for" not in page.read_text()
    file = clone.path / "metrics/timings/simple_cnn.json"
    timing = json.loads(file.read_text())
    assert timing["training_seconds"] == pytest.approx(sum(timing["epoch_seconds"]), abs=0.1)
    file.write_text(json.dumps({**timing, "model_sha256": "of another file"}))
    (clone.path / "metrics/timings/fast94.json").unlink()
    assert clone.stages_run("repro") == ["compare"]
    assert "not recorded for simple_cnn, fast94." in page.read_text()


def test_results_of_other_images_are_refused(clone: Repository) -> None:
    path = clone.path / "data/evaluations/simple_cnn/probabilities.npy"
    path.unlink()
    np.save(path, np.zeros((3, 10), np.float32))
    result = clone.run("dvc", "repro", "--force", "--single-item", "compare")
    assert result.returncode != 0
    assert "error: the results of simple_cnn cannot be read: data/evaluations" in result.stderr
    assert "Traceback" not in result.stderr
