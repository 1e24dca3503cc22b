"""Charts: readable in the light and in the dark, and whatever a model is called."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import ImageColor

from stages.reporting import charts, page
from stages.reporting.default_matplotlib import plt
from tests.reporting.results import model_result


def luminance(color: str) -> float:
    """The relative luminance of a color, as in WCAG 2.2."""
    channels = np.array(ImageColor.getrgb(color)) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(first: str, second: str) -> float:
    """The contrast ratio of two colors, as in WCAG 2.2."""
    lower, higher = sorted([luminance(first), luminance(second)])
    return (higher + 0.05) / (lower + 0.05)


def test_lines_stand_out_from_the_light_and_the_dark_page() -> None:
    papers = re.findall(r"--paper: (#\w+)", page.TEMPLATE.read_text())
    assert len(papers) == 2
    for paper in papers:
        for color in [*charts.COLORS, "grey"]:
            assert contrast(color, paper) >= 3
    figure = charts.learning_curves([model_result("cnn")], 1, 2)
    assert {line.get_alpha() for axes in figure.axes for line in axes.lines} == {None}


@pytest.mark.parametrize(
    ("models", "columns"), [(1, 1), (2, 2), (3, 3), (4, 2), (5, 3), (6, 3), (9, 3)]
)
def test_rows_of_charts_are_even(models: int, columns: int) -> None:
    assert charts.columns(models) == columns
    figure = charts.confusion_matrices([model_result(f"cnn{i}") for i in range(models)])
    assert len(figure.axes) == models


def loss_axis(val_loss: list[float]) -> tuple[str, float, int]:
    """Title and upper end of the axis of the losses, and the number of triangles."""
    curves = {**model_result("cnn").curves, "val_loss": val_loss, "train_loss": [1.0] * 6}
    curves |= {f"{split}_accuracy": [0.5] * 6 for split in ("train", "val")}
    _, axes = charts.learning_curves([model_result("cnn", curves=curves)], 1, 2).axes
    triangles = sum(len(np.asarray(marks.get_offsets())) for marks in axes.collections)
    return axes.get_title(), axes.get_ylim()[1], triangles


def test_loss_beyond_the_axis_is_marked_and_named() -> None:
    title, top, triangles = loss_axis([1.0, 1.0, 1931.0, 1.0, 1.0, 1.0])
    assert "triangles: beyond the axis, up to 1,931" in title
    assert top == 1.5
    assert triangles == 1


def test_axis_that_shows_every_loss_has_no_marks() -> None:
    title, top, triangles = loss_axis([1.0, 1.0, 2.5, 1.0, 1.0, 1.0])
    assert title == "loss by epoch"
    assert top > 2.5
    assert triangles == 0


@pytest.mark.parametrize(
    ("labels", "tendency"), [([0, 0, 0, 0], "underconfident"), ([0, 1, 1, 1], "overconfident")]
)
def test_reliability_says_whether_the_model_is_over_or_underconfident(
    labels: list[int], tendency: str
) -> None:
    probabilities = np.array([[0.9, *[0.1 / 9] * 9]] * 4, np.float32)
    result = model_result("cnn", labels=np.array(labels), probabilities=probabilities)
    _, axes = plt.subplots()
    charts.reliability(axes, result)
    assert axes.get_title().startswith(f"cnn: {tendency}\ncalibration error")
    assert axes.get_xlim() == axes.get_ylim() == (0, 100)  # percent, as in every chart


HOSTILE_NAMES = [
    '"><script>alert(1)</script>',
    "' onload='alert(1)",
    "<b>&amp;</b>",
    "$x^2",  # a formula, to Matplotlib
    r"$\frac$",
    'id="first" url(#first) href="#first"',
    "#0a0b0c",  # the color that the page replaces
    "_hidden",  # in legends, Matplotlib leaves out such labels
    "naïve 网络",
    "a" * 40,
]
ELEMENTS = {"svg", "defs", "style", "g", "path", "use", "text", "tspan", "clipPath", "rect"}


@pytest.mark.filterwarnings("ignore:Glyph .* missing")
def test_model_name_is_text_in_every_chart() -> None:
    results = [model_result(name) for name in HOSTILE_NAMES]
    figures = [
        charts.accuracies(results, dict.fromkeys(HOSTILE_NAMES, 0.5)),
        charts.learning_curves(results, 2, 1),
        charts.accuracy_by_training_time(results),
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


@pytest.mark.parametrize(("count", "named"), [(2, 2), (20, 20), (21, 7), (100, 10), (1000, 10)])
def test_confusion_matrix_has_names_and_numbers_as_there_is_space(count: int, named: int) -> None:
    names = [f"class {number} of those with a long name" for number in range(count)]
    figure, axes = plt.subplots(figsize=(5.2, 5.2))
    charts.confusion_matrix(axes, model_result("cnn", count, names))
    assert len(axes.get_xticklabels()) == len(axes.get_yticklabels()) == named
    assert max(len(label.get_text()) for label in axes.get_xticklabels()) <= charts.MAX_LABEL
    assert len(axes.texts) == (count**2 if count <= 20 else 0)
    assert len(figure.axes) == (1 if count <= 20 else 2)  # a scale of colors instead of numbers
    image = charts.svg(figure, "matrix")
    assert len(image) < 300_000
    assert image.count('href="data:image/png') == (0 if count <= 20 else 2)


def test_long_class_names_keep_their_beginning_and_their_end() -> None:
    assert charts.shorten("golden retriever, adult") == "golden r…, adult"
    assert charts.shorten("automobile") == "automobile"


def test_line_of_the_bar_chart_is_what_needs_no_model() -> None:
    for counts, label, accuracy in [
        ((4, 4), "chance", 50),
        ((6, 2), "always the largest class", 75),
    ]:
        result = model_result("cnn", classes=["cat", "dog"], counts=counts)
        (axes,) = charts.accuracies([result], {}).axes
        assert label in [text.get_text() for text in axes.texts]
        assert accuracy in np.concatenate([np.asarray(line.get_xdata()) for line in axes.lines])
        assert axes.get_xlim()[1] > 100 * result.interval.high


def test_ids_of_two_charts_differ_and_references_are_kept() -> None:
    elements = [
        ElementTree.fromstring(charts.svg(charts.learning_curves([model_result("cnn")], 1, 2), x))
        for x in ("first", "second")
    ]
    ids = [{x.attrib["id"] for x in element.iter() if "id" in x.attrib} for element in elements]
    assert not ids[0] & ids[1]
    for element, own in zip(elements, ids, strict=True):
        text = ElementTree.tostring(element, encoding="unicode")
        references = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', text)
        assert {a or b for a, b in references} <= own
        assert references
