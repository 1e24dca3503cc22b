"""The comparison's results, recomputed from what the evaluations wrote."""

import csv
import itertools
import json
import shutil
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from stages import compare
from stages.common import params, paths, stage_settings
from stages.common.atomic import write_csv, write_json
from stages.common.errors import StageError
from stages.reporting.model_results import ModelResult
from stages.sources.cifar import CLASSES
from tests.params_edits import PARAMS, edited
from tests.reporting.results import (
    HOSTILE_CLASSES,
    description,
    image_split,
    model_result,
    render_page,
    write_results,
)
from tests.repository import MODELS, ROOT, Repository

SETTINGS = params.load()
FOLDER_CLASSES = ["cat", 'dog, "big"', "猫"]  # sorted, as the classes of a folder
FOLDER_NAMES = ["1", "a, b", 'c "d"', "naïve", "two\nlines"]


def test_report_page_and_json_agree_with_the_evaluations(trained: Repository) -> None:
    labels = np.load(trained.path / "data/test/y.npy")
    evaluations = trained.path / "data/evaluations"
    correct = {
        model: np.load(evaluations / model / "probabilities.npy").argmax(axis=1) == labels
        for model in MODELS
    }
    comparison = json.loads((trained.path / "data/comparison.json").read_text())
    report = (trained.path / "metrics/report.md").read_text()
    assert [row[0] for row in table_rows(report)[2:5]] == MODELS  # as in params.yaml
    assert "Pairwise comparison on the same test images (exact McNemar test):" in report
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


def compare_models(*results: ModelResult) -> str:
    """Run the compare stage in the working folder on these models; returns its report."""
    entries = {result.name: {**PARAMS["models"]["simple_cnn"]} for result in results}
    Path("stages").symlink_to(ROOT / "stages")
    shutil.copy(ROOT / paths.DVC_YAML, paths.DVC_YAML)
    paths.PARAMS.write_text(yaml.safe_dump({**edited("dataset=folder"), "models": entries}))
    for stage, used in stage_settings.used_by_stages(params.load().model_dump()).items():
        write_json(paths.SETTINGS / f"{stage}.json", used)
    for result in results:
        write_results(result)
    image_split(paths.TEST, results[0])
    write_json(paths.DESCRIPTION, description(results[0]).model_dump())
    names = [
        ("test", results[0].classes[x], f"{row}.png") for row, x in enumerate(results[0].labels)
    ]
    write_csv(paths.FILES, ["split", "class", "file"], names)
    compare.main()
    return paths.REPORT_MD.read_text()


def test_models_are_ranked_by_balanced_accuracy_where_classes_are_unequal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    report = compare_models(
        model_result("constant", matrix=((60, 0), (20, 0))),
        model_result("accurate", matrix=((60, 0), (8, 12))),
        model_result("balanced", matrix=((52, 8), (1, 19))),
    )
    assert report.startswith(
        "balanced has the highest balanced accuracy, the mean of the classes' accuracies: 90.83%. "
        "It is right about 88.75% of 80 test images (95 % interval "
    )
    header, _, *models, largest = table_rows(report)[:6]
    assert [row[0] for row in models] == ["balanced", "accurate", "constant"]
    assert header[:4] == ["model", "test accuracy", "95 % interval", "balanced accuracy"]
    assert largest[:4] == ["always the largest class", "75.00%", "", "50.00%"]
    assert not any(largest[4:])
    texts = Markup(paths.REPORT_HTML.read_text()).texts
    warning = (
        "constant is no better than naming the largest class each time: predicts airplane for "
        "every image."
    )
    for shown in (texts, report.splitlines()):
        assert warning in shown
        assert any("McNemar's test of the balanced accuracies" in text for text in shown)
    assert {"3 models on images", "always the largest class"} <= {*texts}
    # One has 7 of 20 images to itself, the other 8 of 60: p is 1 if every image counts the same.
    pair = json.loads(paths.COMPARISON_JSON.read_text())["pairs"][0]
    assert [*pair.values()][:4] == ["balanced", "accurate", 7, 8]
    assert pair["p_value"] < 0.2


def test_damaged_file_names_are_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    compare_models(model_result("cnn"))
    content = paths.FILES.read_text()
    cut_off, too_long = content[: len(content) // 2], content + "test,cat,a.png\n"
    for damaged in ("not\na result", cut_off, too_long):
        paths.FILES.write_text(damaged)
        with pytest.raises(StageError, match=r"error: data/files.csv: damaged: .+run `dvc repro`"):
            compare.main()


def test_images_of_a_folder_are_traced_from_their_files_to_their_predictions(
    clone: Repository,
) -> None:
    folder, random = clone.path / "my images", np.random.default_rng(0)
    for split, label, name in itertools.product(("train", "test"), FOLDER_CLASSES, FOLDER_NAMES):
        file = folder / split / label / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(file)
    same = {"test/cat/known.png": "train/cat/1.png", "test/cat/relabelled.png": "train/猫/1.png"}
    for copied, original in same.items():
        shutil.copy(folder / original, folder / copied)
    clone.remove_other_models(["simple_cnn"])
    clone.set_params("models.other={architecture: simple_cnn, weights: random, learning_rate: 0.1}")
    clone.set_params("models.other.dropout=0.0", "folder.image_size=32")
    clone.set_params("dataset=folder", "folder.path=my images")
    output = clone.check("dvc", "repro")

    models = {
        name: np.load(clone.path / f"data/evaluations/{name}/probabilities.npy")
        for name in ("simple_cnn", "other")
    }
    rows = read_table(clone.path / "metrics/images.csv", ",")
    columns = [column for model in models for column in (model, f"{model} probability")]
    assert list(rows[0]) == ["split", "class", "file", "same as", *columns]
    files = {str(x.relative_to(folder)).replace("\n", "?"): x for x in folder.rglob("*.png")}
    assert sorted(row["file"] for row in rows) == sorted(files)
    for split in ("train", "validation", "test"):
        images = np.load(clone.path / f"data/{split}/x.npy")
        of_split = [row for row in rows if row["split"] == split]
        for index, (row, image) in enumerate(zip(of_split, images, strict=True)):
            assert np.array_equal(image, np.asarray(Image.open(files[row["file"]])))
            assert row["class"] == files[row["file"]].parent.name
            predicted = [row[column] for column in columns]
            if split == "test":
                probabilities = [x[index] for x in models.values()]
                named = ((FOLDER_CLASSES[x.argmax()], f"{x.max():.4f}") for x in probabilities)
                assert predicted == [*itertools.chain(*named)]
            else:
                assert predicted == [""] * 4

    texts = Markup((clone.path / "metrics/report.html").read_text()).texts
    assert {x["file"] for x in rows if x["other"] not in ("", x["class"])} <= {*texts}  # mistakes
    assert {row["file"]: row["same as"] for row in rows if row["same as"]} == same
    split_of = {row["file"]: row["split"] for row in rows}
    listed = [f"{copy} = {file} ({split_of[file]})" for copy, file in same.items()]
    listed.append("test/cat/relabelled.png (cat) = train/猫/1.png (猫)")
    listed.append("2 of the 17 test images are training or validation images as well: ")
    listed.append("1 image is in another class as well: ")
    for shown in (output, (clone.path / "metrics/report.md").read_text(), "\n".join(texts)):
        assert [text for text in listed if text not in shown] == []


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
def test_names_of_models_classes_and_files_are_text_on_the_page(tmp_path: Path) -> None:
    def markup(folder: str, models: Sequence[str], classes: Sequence[str]) -> Markup:
        counts = range(1, len(classes) + 1)
        results = [model_result(name, classes=classes, counts=counts) for name in models]
        entries = dict(zip(models, SETTINGS.models.values(), strict=False))
        settings = SETTINGS.model_copy(update={"models": entries})
        files: dict[str, Any] = {
            "duplicates": [f"{classes[0]}/a.jpg = b.jpg (train)"],
            "contradictions": [f"a.jpg ({classes[0]}) = b.jpg ({classes[1]})"],
            "skipped": [f"images/{classes[0]}/a.jpg: truncated"],
            "left_out": {f".{classes[0]}": 1},
        }
        return Markup(render_page(tmp_path / folder, results, settings, **files))

    name = '"><script>alert(1)</script>'
    hostile = markup("hostile", [name, "other"], HOSTILE_CLASSES)
    plain = markup("plain", ["cnn", "other"], ["cat", "deer", "dog", "fox", "frog"])
    assert hostile.tags == plain.tags
    assert set(hostile.attributes) == set(plain.attributes)
    assert {*HOSTILE_CLASSES, name} <= set(hostile.texts)
    assert f"{name}: confusion matrix" in hostile.attributes["aria-label"]
    assert f"images/{HOSTILE_CLASSES[0]}/a.jpg: truncated" in hostile.texts
    assert f"{HOSTILE_CLASSES[0]}/a.jpg = b.jpg (train)" in hostile.texts
    assert f"{HOSTILE_CLASSES[1]}/1.png" in hostile.texts  # of a mistake
    assert "1 unreadable file was left out" in hostile.texts
    left_out = f"1 file without an image's suffix is left out: 1 .{HOSTILE_CLASSES[0]}."
    assert left_out in hostile.texts


def test_page_of_a_single_model_and_a_thousand_classes_is_small(tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(1000)]
    page = render_page(tmp_path / "test", [model_result("cnn", 2000, names)], SETTINGS, size=64)
    assert len(page) < 1_000_000
    markup = Markup(page)
    assert set(names) <= set(markup.texts)
    assert "1 model on CIFAR-10" in markup.texts
    assert not {"pairs", "hardest"} & markup.attributes["id"]
    assert not {"#pairs", "#hardest"} & markup.attributes["href"]


@pytest.mark.parametrize(
    ("path", "title"), [("data/images", "images"), ("/srv/flowers/", "flowers"), (".", ".")]
)
def test_page_of_a_folder_has_its_name_and_settings(tmp_path: Path, path: str, title: str) -> None:
    folder = SETTINGS.folder.model_copy(update={"path": path})
    settings = SETTINGS.model_copy(update={"dataset": "folder", "folder": folder})
    texts = Markup(render_page(tmp_path / "test", [model_result("cnn")], settings)).texts
    assert {f"1 model on {title}", "folder.path", path} <= set(texts)
