"""The report in Markdown: what it says of models and data set, for few and many classes."""

import html
import re
from typing import Any

import numpy as np
import pytest

from stages.common import params
from stages.reporting import summary
from stages.reporting.markdown import markdown_table
from stages.reporting.model_results import ModelResult
from stages.reporting.statistics import Pair
from tests.reporting.results import HOSTILE_CLASSES, description, model_result

SETTINGS = params.load()
# Confusion matrices of a large and a small class.
ALWAYS_LARGE, ALWAYS_SMALL, GOOD = ((60, 0), (20, 0)), ((0, 60), (0, 20)), ((58, 2), (4, 16))


def report(*results: ModelResult, **changes: Any) -> str:
    """The report on these models; `changes` are those of the data set's description."""
    data = description(results[0], **changes)
    return summary.markdown(results, summary.compare_pairs(results), SETTINGS, data)


def test_report_of_equal_classes_describes_them_in_a_sentence() -> None:
    changes = {"validation_share": 0.1, "min_validation_images": 4, "tta_views": 6}
    changes |= {"recompute_batch_norm_below": 10_000}
    entry = SETTINGS.models["fast94"].model_copy(update=changes)
    settings = SETTINGS.model_copy(update={"models": {"fast94": entry}})
    assert summary.images(description(model_result("fast94")), settings) == (
        "10 classes: 40 training images (4 per class), 40 validation images (4 per class) and 40 "
        "test images (4 per class). fast94 also trained on all but 4 of the validation images; its "
        "validation accuracy is measured on those left out. The validation accuracy of fast94 is "
        "that of single images, its test accuracy that of 6 views of each image. The averages of "
        "batch normalization of fast94 were computed anew after training; validation accuracies "
        "are from before."
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
    results = [
        model_result(f"model{wrong}", matrix=((20 - wrong, wrong), (0, 20)))
        for wrong in range(models)
    ]
    p_values = [p_value, p_value, 1.0]  # that of the two others does not matter
    pairs = zip(summary.compare_pairs(results), p_values, strict=False)
    text = summary.summary(results, {names: Pair(9, 1, p) for names, p in pairs})
    assert text.startswith("model0 is the most accurate model: 100.00% of 40 test images (95 % ")
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


def test_report_counts_files_without_an_images_suffix() -> None:
    text = report(model_result("cnn"), left_out={".heic": 1200, "": 3, "._a_": 2, ".csv": 1})
    assert text.endswith(
        "\n\n1,206 files without an image's suffix are left out: 1,200 .heic, 3 without a suffix, "
        "2 .\\_a\\_ and 1 more.\n"
    )
    assert "suffix" not in report(model_result("cnn"))


def test_report_lists_images_that_occur_twice_and_says_what_that_means() -> None:
    duplicates = [f"test/{n}.png = train/{n}.png (train)" for n in range(5)]
    contradictions = ["cat/a_*.png (cat) = dog/b.png (dog)"]
    text = report(model_result("cnn"), duplicates=duplicates, contradictions=contradictions)
    first, second, *_ = text.split("\n\n")
    assert first == (
        "**5 of the 40 test images are training or validation images as well: their accuracy is "
        f"not that of unseen images.** {', '.join(duplicates[:3])} and 2 more"
    )
    assert second == (
        "**1 image is in another class as well: no model can get both right.** "
        r"cat/a\_\*.png (cat) = dog/b.png (dog)"
    )


def test_model_that_names_one_class_is_never_the_most_accurate() -> None:
    results = [model_result("constant", matrix=ALWAYS_LARGE), model_result("good", matrix=GOOD)]
    text = report(*results)
    assert text.startswith("good has the highest balanced accuracy, the mean of the classes' ")
    assert "accuracies: 88.33%. It is right about 92.50% of 80 test images (95 % interval" in text
    failure, remedy = summary.warnings(results)
    assert failure == (
        "constant is no better than naming the largest class each time: predicts airplane for "
        "every image."
    )
    assert remedy.startswith("What helps: good; more images; more steps (epochs or training.")
    assert f"\n\n{failure}\n\n{remedy}\n\n" in text


def test_no_model_is_the_most_accurate_where_all_fail() -> None:
    for matrices, outcome in (
        (
            (ALWAYS_LARGE, ALWAYS_SMALL),
            "naming the largest class each time (75.00% of 80 test images)",
        ),
        (([[20, 0], [20, 0]], [[13, 7], [8, 12]]), "chance (50.00% of 40 test images)"),
    ):
        results = [model_result(str(index), matrix=x) for index, x in enumerate(matrices)]
        assert report(*results).startswith(f"No model is better than {outcome}.\n\n0 is no better")
        *failures, remedy = summary.warnings(results)
        assert len(failures) == 2
        assert remedy.startswith("What helps: pretrained weights; more images; ")
    assert failures[1] == (  # 25 of 40, of which Wilson's interval begins below 1 / 2
        "1 is no better than chance: the 95 % interval of its accuracy begins at 47.0%."
    )


def test_class_of_which_no_image_is_classified_correctly_is_named() -> None:
    misses_bird = model_result("cnn", matrix=((10, 0, 0), (0, 10, 0), (5, 5, 0)))
    good = model_result("good", matrix=((9, 1, 0), (0, 10, 0), (0, 1, 9)))
    missed, remedy = summary.warnings([misses_bird, good])
    assert missed.startswith("cnn classifies no image of bird correctly: ")
    assert remedy.startswith("What helps: good; more images; ")
    assert summary.warnings([good]) == []
    assert "cnn" not in summary.warnings([misses_bird])[-1]  # it does not help itself
    for text in (missed, remedy):
        assert text in report(misses_bird, good)


def test_names_of_classes_and_files_are_text_in_the_report() -> None:
    always_first, misses_last = np.zeros((2, 5, 5), int)
    always_first[:, 0] = range(10, 19, 2)
    misses_last[range(5), [0, 1, 2, 3, 0]] = range(10, 19, 2)
    text = report(
        model_result("constant", classes=HOSTILE_CLASSES, matrix=always_first.tolist()),
        model_result("cnn", classes=HOSTILE_CLASSES, matrix=misses_last.tolist()),
        model_result("random", classes=HOSTILE_CLASSES, counts=range(10, 19, 2)),
        **dict.fromkeys(["duplicates", "contradictions", "skipped"], HOSTILE_CLASSES[:3]),
    )
    # What a backslash precedes stands for itself.
    cells = re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text)
    for name in HOSTILE_CLASSES:
        assert name in cells
        assert html.escape(name) == name or name not in text
    assert r"| a\|b " in markdown_table([{"settings": "a|b"}])
