"""The report in Markdown: what it says of the data set, for few and many classes."""

import html
import re

import pytest

from stages.common import params
from stages.reporting import summary
from tests.reporting.results import HOSTILE_CLASSES, description, model_result

SETTINGS = params.load()


def test_report_of_equal_classes_describes_them_in_a_sentence() -> None:
    result = model_result("cnn")
    report = summary.markdown([result], SETTINGS, description(result))
    assert report.splitlines()[-1] == (
        "10 classes: 40 training images (4 per class), 40 validation images (4 per class) and 40 "
        "test images (4 per class). fast94 also trained on all but 4 of the validation images; its "
        "validation accuracy is measured on those left out."
    )
    assert "airplane" not in report


def test_report_lists_all_of_a_few_unequal_classes() -> None:
    result = model_result("cnn", classes=["cat", "dog", "fox"], counts=(20, 30, 40))
    report = summary.markdown([result], SETTINGS, description(result))
    assert "(20 to 40 per class)" in report
    assert re.search(r"\| fox +\| +40 \| +40 \| +40 \|", report)


def test_report_of_many_classes_names_those_that_stand_out() -> None:
    names = [f"class {number}" for number in range(100)]
    result = model_result("cnn", classes=names, counts=range(1, 101))
    report = summary.markdown([result], SETTINGS, description(result))
    assert "(1 to 100, median 50 per class)" in report
    assert "Smallest classes: class 0 (3), class 1 (6), class 2 (9), class 3 (12), " in report
    assert "Largest classes: class 99 (300), class 98 (297)" in report
    table = report.split("with the lowest and the 5 with the highest accuracy of cnn")[1]
    rows = [
        line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| class ")
    ]
    order = result.classes_by_accuracy()
    assert rows[1:] == [names[index] for index in [*order[:5], *order[-5:]]]
    assert len(report.splitlines()) < 40


@pytest.mark.parametrize(("skipped", "listed"), [(1, 1), (10, 10), (11, 10), (500, 10)])
def test_report_cuts_the_list_of_skipped_files(skipped: int, listed: int) -> None:
    result = model_result("cnn")
    files = [f"images/cat/{number}.jpg: truncated" for number in range(skipped)]
    report = summary.markdown([result], SETTINGS, description(result, skipped=files))
    assert f"{skipped} unreadable file" in report
    assert report.count(".jpg: truncated") == listed
    assert (f"and {skipped - listed} more" in report) == (skipped > listed)


def test_report_says_what_duplicates_mean() -> None:
    result = model_result("cnn")
    report = summary.markdown([result], SETTINGS, description(result, duplicates=3))
    assert report.startswith("**3 of the 40 test images are training or validation images as well")


def test_class_names_are_text_in_the_report() -> None:
    result = model_result("cnn", classes=HOSTILE_CLASSES, counts=range(1, 6))
    report = summary.markdown([result], SETTINGS, description(result))
    # What a backslash precedes stands for itself.
    cells = re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", report)
    for name in HOSTILE_CLASSES:
        assert name in cells
        assert html.escape(name) == name or name not in report
