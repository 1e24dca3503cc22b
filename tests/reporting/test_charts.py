"""Charts: equal on every machine, readable in the light and in the dark, names are text."""

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import ImageColor

from stages.reporting import charts, page
from tests.reporting.results import HOSTILE_CLASSES, model_result
from tests.repository import ROOT

DRAW = "from tests.reporting.test_charts import save_chart; save_chart('chart.png')"
SETTINGS = "text.usetex: True\nfont.size: 20\nsvg.fonttype: path\nsavefig.bbox: tight\nbackend: svg"
# References, and the color that the page replaces.
HOSTILE_NAMES = [*HOSTILE_CLASSES, 'id="first" url(#first) href="#first"', charts.INK]
ELEMENTS = {"svg", "defs", "style", "g", "path", "use", "text", "tspan", "clipPath", "rect"}


def save_chart(path: str) -> None:
    charts.save_png(charts.accuracies([model_result("cnn")], {"cnn": 0.5}), Path(path))


def test_charts_ignore_the_settings_of_a_matplotlibrc(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text(SETTINGS)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", DRAW], cwd=tmp_path, env=environment, check=True)
    save_chart(f"{tmp_path}/expected.png")
    assert (tmp_path / "chart.png").read_bytes() == (tmp_path / "expected.png").read_bytes()


def luminance(color: str) -> float:
    """The relative luminance of a color, as in WCAG 2.2."""
    channels = np.array(ImageColor.getrgb(color)) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_lines_stand_out_from_the_light_and_the_dark_page() -> None:
    papers = re.findall(r"--paper: (#\w+)", page.TEMPLATE.read_text())
    assert len(papers) == 2
    for paper in papers:
        for color in [*charts.COLORS, "grey"]:
            lower, higher = sorted([luminance(color), luminance(paper)])
            assert (higher + 0.05) / (lower + 0.05) >= 3  # the contrast ratio
    figure = charts.learning_curves([model_result("cnn")], 1, 2)
    assert {line.get_alpha() for axes in figure.axes for line in axes.lines} == {None}


def test_rows_of_charts_are_even() -> None:
    assert [charts.columns(models) for models in range(1, 10)] == [1, 2, 3, 2, 3, 3, 3, 3, 3]
    assert len(charts.confusion_matrices([model_result("cnn")] * 5).axes) == 5


@pytest.mark.parametrize(
    ("highest", "title", "top", "marks"),
    [(1931.0, " (triangles: beyond the axis, up to 1,931)", 1.5, 1), (2.5, "", 2.5, 0)],
)
def test_loss_beyond_the_axis_is_marked_and_named(
    highest: float, title: str, top: float, marks: int
) -> None:
    curves = {name: [0.5] * 6 for name in model_result("cnn").curves}
    curves |= {"val_loss": [1.0, 1.0, highest, 1.0, 1.0, 1.0], "train_loss": [1.0] * 6}
    _, axes = charts.learning_curves([model_result("cnn", curves=curves)], 1, 2).axes
    assert axes.get_title() == f"loss by epoch{title}"
    assert axes.get_ylim()[1] == pytest.approx(top, rel=0.1)
    assert sum(len(np.asarray(points.get_offsets())) for points in axes.collections) == marks


def test_reliability_says_whether_the_model_is_over_or_underconfident() -> None:
    probabilities = np.array([[0.9, *[0.1 / 9] * 9]] * 4, np.float32)
    for labels, tendency in (([0, 0, 0, 0], "under"), ([0, 1, 1, 1], "over")):
        _, axes = plt.subplots()
        result = model_result("cnn", labels=np.array(labels), probabilities=probabilities)
        charts.reliability(axes, result)
        assert axes.get_title().startswith(f"cnn: {tendency}confident\ncalibration error")
        assert axes.get_xlim() == axes.get_ylim() == (0, 100)  # percent, as in every chart


@pytest.mark.filterwarnings("ignore:Glyph .* missing")
def test_model_name_is_text_in_every_chart() -> None:
    results = [model_result(name) for name in HOSTILE_NAMES]
    figures = [
        charts.accuracies(results, dict.fromkeys(HOSTILE_NAMES, 0.5)),
        charts.learning_curves(results, 2, 1),
        charts.accuracy_by_minutes(results),
        charts.confusion_matrices(results),
    ]
    description = "".join(HOSTILE_NAMES)
    for figure in figures:
        element = ElementTree.fromstring(charts.svg(figure, description))
        assert element.attrib["aria-label"] == description
        texts = [*element.itertext()]
        for name in HOSTILE_NAMES:
            assert any(name in text for text in texts)
        assert {child.tag for child in element.iter()} <= ELEMENTS


@pytest.mark.parametrize(("count", "named"), [(2, 2), (20, 20), (21, 7), (1000, 10)])
def test_confusion_matrix_has_names_and_numbers_as_there_is_space(count: int, named: int) -> None:
    names = [f"class {number} of those with a long name" for number in range(count)]
    figure, axes = plt.subplots(figsize=(5.2, 5.2))
    charts.confusion_matrix(axes, model_result("cnn", count, names))
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert len(labels) == len(axes.get_yticklabels()) == named
    assert labels[0] == "class 0 …ng name"  # both its ends
    assert len(axes.texts) == (count**2 if count <= 20 else 0)
    assert len(figure.axes) == (1 if count <= 20 else 2)  # a scale of colors instead of numbers
    image = charts.svg(figure, "matrix")
    assert len(image) < 300_000
    assert image.count('href="data:image/png') == (0 if count <= 20 else 2)


def test_line_of_the_bar_chart_is_what_needs_no_model() -> None:
    lines = ((4, 4), "chance", 50), ((6, 2), "always the largest class", 75)
    for counts, label, accuracy in lines:
        result = model_result("cnn", classes=["cat", "dog"], counts=counts)
        (axes,) = charts.accuracies([result], {}).axes
        assert label in [text.get_text() for text in axes.texts]
        assert accuracy in np.concatenate([np.asarray(line.get_xdata()) for line in axes.lines])
        assert axes.get_xlim()[1] > 100 * result.interval.high


def test_bar_chart_marks_balanced_accuracies_where_classes_are_unequal() -> None:
    for matrix, marked in ((((4, 0), (2, 2)), []), (((6, 0), (1, 1)), [75])):
        (axes,) = charts.accuracies([model_result("cnn", matrix=matrix)], {}).axes
        marks = [x for x in axes.collections if x.get_label() == "balanced accuracy"]
        assert [x for mark in marks for x, _ in np.asarray(mark.get_offsets())] == marked


def test_ids_of_two_charts_differ_and_references_are_kept() -> None:
    figures = {x: charts.learning_curves([model_result("cnn")], 1, 2) for x in ("first", "second")}
    texts = [charts.svg(figure, name) for name, figure in figures.items()]
    ids = [set(re.findall(r' id="([^"]+)"', text)) for text in texts]
    assert not ids[0] & ids[1]
    for text, defined in zip(texts, ids, strict=True):
        references = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', text)
        assert references
        assert {a or b for a, b in references} <= defined
