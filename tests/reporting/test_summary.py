"""The report in Markdown: what it says of models and data set, for few and many classes."""

import html
import re
from typing import Any

import pytest

from stages.common import params
from stages.reporting import summary
from stages.reporting.markdown import markdown_table
from stages.reporting.model_results import ModelResult
from stages.reporting.statistics import Pair
from tests.reporting.results import HOSTILE_CLASSES, description, model_result

SETTINGS = params.load()


def report(result: ModelResult, **changes: Any) -> str:
    """The report on a single model; `changes` are those of the data set's description."""
    return summary.markdown([result], {}, SETTINGS, description(result, **changes))


def test_report_of_equal_classes_describes_them_in_a_sentence() -> None:
    assert report(model_result("cnn")).splitlines()[-1] == (
        "10 classes: 40 training images (4 per class), 40 validation images (4 per class) and 40 "
        "test images (4 per class). fast94 also trained on all but 4 of the validation images; its "
        "validation accuracy is measured on those left out. The validation accuracy of fast94 is "
        "that of single images, its test accuracy that of 6 views of each image."
    )


@pytest.mark.parametrize(
    ("models", "p_value", "sentence"),
    [
        (2, 0.02, "Its lead over every other model is statistically significant."),
        (2, 0.06, "Its lead over model1 is not significant; it may be chance."),
        (3, 0.02, "Its lead over model1 and model2 is not significant; it may be chance."),
        (3, 0.01, "Its lead over every other model is statistically significant."),  # < 0.05 / 3
    ],
)
def test_lead_is_significant_after_correction_for_the_number_of_comparisons(
    models: int, p_value: float, sentence: str
) -> None:
    results = [model_result(f"model{index}", accuracy=0.5 - index / 10) for index in range(models)]
    p_values = [p_value, p_value, 1.0]  # that of the two others does not matter
    pairs = zip(summary.compare_pairs(results), p_values, strict=False)
    text = summary.summary(results, {names: Pair(9, 1, p) for names, p in pairs})
    assert text.startswith("model0 is the most accurate model: 50.00% of 40 test images (95 % ")
    assert text.endswith(sentence)


def test_report_lists_all_of_a_few_unequal_classes() -> None:
    text = report(model_result("cnn", classes=["cat", "dog", "fox"], counts=(20, 30, 40)))
    assert "(20 to 40 per class)" in text
    assert re.search(r"\| fox +\| +40 \| +40 \| +40 \|", text)


def test_report_of_many_classes_names_those_that_stand_out() -> None:
    names = [f"class {number}" for number in range(100)]
    result = model_result("cnn", classes=names, counts=range(1, 101))
    text = report(result)
    assert "(1 to 100, median 50 per class)" in text
    assert "Smallest classes: class 0 (3), class 1 (6), class 2 (9), class 3 (12), " in text
    assert "Largest classes: class 99 (300), class 98 (297)" in text
    table = text.split("with the lowest and the 5 with the highest accuracy of cnn")[1]
    order = result.classes_by_accuracy()
    rows = re.findall(r"^\| (class \d+)", table, re.MULTILINE)
    assert rows == [names[index] for index in [*order[:5], *order[-5:]]]
    assert len(text.splitlines()) < 40


def test_report_cuts_the_list_of_skipped_files() -> None:
    for skipped, listed in ((1, 1), (10, 10), (500, 10)):
        text = report(model_result("cnn"), skipped=["cat/1.jpg: truncated"] * skipped)
        assert f"{skipped} unreadable file" in text
        assert text.count(".jpg: truncated") == listed
        assert (f"and {skipped - listed} more" in text) == (skipped > listed)


def test_report_says_what_duplicates_mean() -> None:
    text = report(model_result("cnn"), duplicates=3)
    assert text.startswith("**3 of the 40 test images are training or validation images as well")


def test_class_names_are_text_in_the_report() -> None:
    text = report(model_result("cnn", classes=HOSTILE_CLASSES, counts=range(1, 6)))
    # What a backslash precedes stands for itself.
    cells = re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text)
    for name in HOSTILE_CLASSES:
        assert name in cells
        assert html.escape(name) == name or name not in text
    assert r"| a\|b " in markdown_table([{"settings": "a|b"}])
