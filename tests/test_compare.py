"""The comparison's results, recomputed from what the evaluations wrote."""

import csv
import json
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from stages import compare
from stages.common import params, paths
from stages.dataset.splits import Split
from stages.reporting import page, tables
from stages.reporting.markdown import markdown_table
from stages.sources.archive import CLASSES
from tests.faults import assert_one_line, outputs
from tests.reporting.results import HOSTILE_CLASSES, description, image_split, model_result
from tests.repository import MODELS, Repository


def test_report_page_and_json_agree_with_the_evaluations(trained: Repository) -> None:
    labels = np.load(trained.path / "data/test/y.npy").argmax(axis=1)
    evaluations = trained.path / "data/evaluations"
    correct = {
        model: np.load(evaluations / model / "probabilities.npy").argmax(axis=1) == labels
        for model in MODELS
    }
    comparison = json.loads((trained.path / "data/comparison.json").read_text())
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
    for model in MODELS:
        wrong = (~correct[model]).sum()
        assert f"The {min(wrong, 12)} most confident of {wrong} misclassified test images" in page


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
    clone.check("dvc", "repro", "--force", "--single-item", "compare")
    assert "not recorded for simple_cnn, fast94." in page.read_text()


def test_damaged_results_end_in_one_line_and_keep_the_report(clone: Repository) -> None:
    path = clone.path / "data/evaluations/simple_cnn/probabilities.npy"
    path.unlink()
    np.save(path, np.zeros((3, 10), np.float32))
    before = outputs(clone)
    result = clone.run(sys.executable, "-m", "stages.compare")
    assert_one_line(
        result,
        "error: data/evaluations/simple_cnn/probabilities.npy: has predictions for 3 images",
        "run `dvc repro --force --single-item evaluate@simple_cnn`, then `dvc repro`",
    )
    assert outputs(clone) == before


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


def test_model_names_and_parameters_are_text_on_the_page(
    trained: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained.path)
    settings, test = params.load(), Split(paths.TEST)
    name = '"><script>alert(1)</script>'
    models = {name: settings.models["simple_cnn"], "other": settings.models["fast94"]}
    hostile = settings.model_copy(update={"models": models})
    results = [model_result(model, software={name: "1"}) for model in models]
    plain_results = [model_result("cnn"), model_result("other")]
    data = description(results[0])
    plain = Markup(page.html(plain_results, settings, data, test))
    markup = Markup(page.html(results, hostile, data, test))
    assert markup.tags == plain.tags
    assert set(markup.attributes) == set(plain.attributes)
    assert markup.texts.count(name) > 5
    assert f"{name}: confusion matrix" in markup.attributes["aria-label"]


def test_page_of_a_single_model_compares_nothing(
    trained: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained.path)
    result = model_result("cnn")
    data = description(result)
    markup = Markup(page.html([result], params.load(), data, Split(paths.TEST)))
    assert "1 network on a generated sample" in markup.texts
    assert {"pairs", "hardest"}.isdisjoint(markup.attributes["id"])
    assert {"#pairs", "#hardest"}.isdisjoint(markup.attributes["href"])


@pytest.mark.filterwarnings("ignore:Glyph .* missing")
def test_class_names_and_skipped_files_are_text_on_the_page(tmp_path: Path) -> None:
    settings = params.load()
    pages = []
    for classes in (HOSTILE_CLASSES, [f"class {i}" for i in range(len(HOSTILE_CLASSES))]):
        result = model_result("cnn", classes=classes, counts=range(1, len(classes) + 1))
        data = description(result, skipped=[f"images/{classes[0]}/a.jpg: truncated"], duplicates=1)
        test = image_split(tmp_path / classes[-1][:9], result, (96, 128))
        pages.append(Markup(page.html([result], settings, data, test)))
    hostile, plain = pages
    assert hostile.tags == plain.tags
    assert set(hostile.attributes) == set(plain.attributes)
    assert set(HOSTILE_CLASSES) <= set(hostile.texts)
    assert f"images/{HOSTILE_CLASSES[0]}/a.jpg: truncated" in hostile.texts
    assert "1 unreadable file was left out" in hostile.texts
    assert {"96", "128"} <= hostile.attributes["height"] | hostile.attributes["width"]


def test_page_of_a_thousand_classes_stays_small(tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(1000)]
    result = model_result("cnn", 2000, names)
    test = image_split(tmp_path / "test", result, (64, 64))
    html = page.html([result], params.load(), description(result), test)
    assert len(html) < 1_000_000
    assert set(names) <= set(Markup(html).texts)


@pytest.mark.parametrize(
    ("count", "top_k"), [(2, []), (3, ["top 2"]), (20, ["top 2"]), (21, ["top 5"])]
)
def test_top_k_accuracy_fits_the_number_of_classes(count: int, top_k: list[str]) -> None:
    names = [f"class {number}" for number in range(count)]
    (row,) = tables.models([model_result("cnn", 10 * count, names)], params.load())
    assert [heading for heading in row if heading.startswith("top")] == top_k
    numbers = compare.numbers([model_result("cnn", 10 * count, names)])["models"]["cnn"]
    keys = [key for key in numbers if key.startswith("top")]
    assert keys == [f"{heading.replace(' ', '')}_accuracy" for heading in top_k]


def test_balanced_accuracy_is_a_column_where_classes_are_unequal() -> None:
    for counts, shown in [((10, 15), False), ((10, 16), True)]:
        result = model_result("cnn", classes=["cat", "dog"], counts=counts)
        (row,) = tables.models([result], params.load())
        assert ("balanced accuracy" in row) == shown
        numbers = compare.numbers([result])["models"]["cnn"]
        assert numbers["balanced_accuracy"] == pytest.approx(result.class_accuracies.mean())
        for name, accuracy in numbers["class_accuracies"].items():
            low, high = numbers["class_intervals"][name]
            assert low <= accuracy <= high


@pytest.mark.parametrize(
    ("path", "title"),
    [
        ("data/images", "images"),
        ("/srv/flowers/", "flowers"),
        (".", "."),
        ("../my pets", "my pets"),
    ],
)
def test_page_of_a_folder_has_its_name(tmp_path: Path, path: str, title: str) -> None:
    settings = params.load()
    folder = settings.folder.model_copy(update={"path": path})
    settings = settings.model_copy(update={"dataset": "folder", "folder": folder})
    result = model_result("cnn")
    test = image_split(tmp_path / "test", result, (32, 32))
    texts = Markup(page.html([result], settings, description(result), test)).texts
    assert f"1 network on {title}" in texts
    assert f"Comparison of networks on {title}" in texts


def test_folder_settings_are_among_the_shared_parameters() -> None:
    settings = params.load().model_copy(update={"dataset": "folder"})
    rows = {row["parameter"]: row["value"] for row in tables.shared_params(settings)}
    assert rows["folder.path"] == settings.folder.path
    assert rows["folder.image_size"] == settings.folder.image_size


def test_software_of_models_evaluated_with_different_packages_is_in_its_columns() -> None:
    software = [{"keras": "3", "tensorflow": "2"}, {"keras": "3", "jax": "0"}]
    first, second = tables.provenance([model_result("cnn", software=x) for x in software])
    assert list(first) == list(second)
    assert (first["tensorflow"], first["jax"]) == ("2", "")
    assert (second["tensorflow"], second["jax"]) == ("", "0")


def test_markdown_cells_keep_their_bars() -> None:
    assert r"| a\|b " in markdown_table([{"settings": "a|b"}])
