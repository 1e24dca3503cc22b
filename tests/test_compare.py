"""The comparison's results, recomputed from what the evaluations wrote."""

import csv
import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from stages import compare
from stages.common import params
from stages.reporting import tables
from stages.sources.cifar import CLASSES
from tests.reporting.results import HOSTILE_CLASSES, model_result, render_page
from tests.repository import MODELS, Repository

SETTINGS = params.load()


def test_report_page_and_json_agree_with_the_evaluations(trained: Repository) -> None:
    labels = np.load(trained.path / "data/test/y.npy")
    evaluations = trained.path / "data/evaluations"
    correct = {
        model: np.load(evaluations / model / "probabilities.npy").argmax(axis=1) == labels
        for model in MODELS
    }
    comparison = json.loads((trained.path / "data/comparison.json").read_text())
    report = (trained.path / "metrics/report.md").read_text()
    page = (trained.path / "metrics/report.html").read_text()
    for model in MODELS:
        accuracy, wrong = correct[model].mean(), (~correct[model]).sum()
        numbers = comparison["models"][model]
        assert numbers["accuracy"] == pytest.approx(accuracy)
        assert numbers["interval"][0] < accuracy < numbers["interval"][1]
        assert numbers["top2_accuracy"] >= numbers["accuracy"]
        for label, name in enumerate(CLASSES):
            class_accuracy = correct[model][labels == label].mean()
            assert numbers["class_accuracies"][name] == pytest.approx(class_accuracy)
        for text in (report, page):
            assert f"{accuracy:.2%}" in text
        assert f"The {min(wrong, 12)} most confident of {wrong} misclassified test images" in page
    assert len(comparison["pairs"]) == 3
    for pair in comparison["pairs"]:
        first, second = correct[pair["first"]], correct[pair["second"]]
        assert pair["only_first"] == (first & ~second).sum()
        assert pair["only_second"] == (second & ~first).sum()
        row = [pair["first"], pair["second"], str(pair["only_first"]), str(pair["only_second"])]
        assert [*row, f"{pair['p_value']:.2g}"] in table_rows(report)
    missed_by_all = (~np.any(list(correct.values()), axis=0)).sum()
    assert f"<p>{missed_by_all} of {len(labels)} test images" in page


def table_rows(report: str) -> list[list[str]]:
    """The cells of every row of a Markdown text's tables."""
    lines = [line for line in report.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_report_and_page_of_the_sample_claim_nothing_of_real_images(trained: Repository) -> None:
    report, page = (
        (trained.path / f"metrics/report.{kind}").read_text() for kind in ("md", "html")
    )
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
    file = clone.path / "metrics/provenance/simple_cnn.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_sha256": "another"}))
    (clone.path / "metrics/provenance/fast94.json").unlink()
    assert clone.stages_run("repro") == ["compare"]
    assert "not recorded for simple_cnn, fast94." in page.read_text()


class Markup(HTMLParser):
    """Collects the elements, attributes and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: dict[str, set[str | None]] = {}
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, set()).add(value)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.mark.filterwarnings("ignore:Glyph .* missing")
def test_names_of_models_classes_and_skipped_files_are_text_on_the_page(tmp_path: Path) -> None:
    def markup(folder: str, models: Sequence[str], classes: Sequence[str]) -> Markup:
        counts = range(1, len(classes) + 1)
        results = [model_result(name, classes=classes, counts=counts) for name in models]
        entries = dict(zip(models, SETTINGS.models.values(), strict=False))
        settings = SETTINGS.model_copy(update={"models": entries})
        skipped = [f"images/{classes[0]}/a.jpg: truncated"]
        return Markup(render_page(tmp_path / folder, results, settings, skipped=skipped))

    name = '"><script>alert(1)</script>'
    hostile = markup("hostile", [name, "other"], HOSTILE_CLASSES)
    plain = markup("plain", ["cnn", "other"], ["cat", "deer", "dog", "fox", "frog"])
    assert hostile.tags == plain.tags
    assert set(hostile.attributes) == set(plain.attributes)
    assert {*HOSTILE_CLASSES, name} <= set(hostile.texts)
    assert f"{name}: confusion matrix" in hostile.attributes["aria-label"]
    assert f"images/{HOSTILE_CLASSES[0]}/a.jpg: truncated" in hostile.texts
    assert "1 unreadable file was left out" in hostile.texts


def test_page_of_a_single_model_and_a_thousand_classes_is_small(tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(1000)]
    page = render_page(tmp_path / "test", [model_result("cnn", 2000, names)], SETTINGS, size=64)
    assert len(page) < 1_000_000
    markup = Markup(page)
    assert set(names) <= set(markup.texts)
    assert "1 network on CIFAR-10" in markup.texts
    assert not {"pairs", "hardest"} & markup.attributes["id"]
    assert not {"#pairs", "#hardest"} & markup.attributes["href"]


@pytest.mark.parametrize(
    ("path", "title"), [("data/images", "images"), ("/srv/flowers/", "flowers"), (".", ".")]
)
def test_page_of_a_folder_has_its_name_and_settings(tmp_path: Path, path: str, title: str) -> None:
    folder = SETTINGS.folder.model_copy(update={"path": path})
    settings = SETTINGS.model_copy(update={"dataset": "folder", "folder": folder})
    texts = Markup(render_page(tmp_path / "test", [model_result("cnn")], settings)).texts
    assert {f"1 network on {title}", "folder.path", path} <= set(texts)


@pytest.mark.parametrize(
    ("count", "top_k"), [(2, []), (3, ["top 2"]), (20, ["top 2"]), (21, ["top 5"])]
)
def test_top_k_accuracy_fits_the_number_of_classes(count: int, top_k: list[str]) -> None:
    result = model_result("cnn", 10 * count, [f"class {number}" for number in range(count)])
    (row,) = tables.models([result], SETTINGS)
    assert [heading for heading in row if heading.startswith("top")] == top_k
    numbers = compare.numbers([result], {})["models"]["cnn"]
    keys = [key for key in numbers if key.startswith("top")]
    assert keys == [f"{heading.replace(' ', '')}_accuracy" for heading in top_k]


def test_balanced_accuracy_is_a_column_where_classes_are_unequal() -> None:
    for counts, shown in [((10, 15), False), ((10, 16), True)]:
        result = model_result("cnn", classes=["cat", "dog"], counts=counts)
        (row,) = tables.models([result], SETTINGS)
        assert ("balanced accuracy" in row) == shown
        numbers = compare.numbers([result], {})["models"]["cnn"]
        assert numbers["balanced_accuracy"] == pytest.approx(result.class_accuracies.mean())
        for name, accuracy in numbers["class_accuracies"].items():
            low, high = numbers["class_intervals"][name]
            assert low <= accuracy <= high


def test_software_of_models_evaluated_with_different_packages_is_in_its_columns() -> None:
    software = [{"keras": "3", "tensorflow": "2"}, {"keras": "3", "jax": "0"}]
    first, second = tables.provenance([model_result("cnn", software=x) for x in software])
    assert (first["tensorflow"], first["jax"]) == ("2", "")
    assert (second["tensorflow"], second["jax"]) == ("", "0")
