"""The comparison in a few sentences and tables, for a terminal and for pull requests."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from stages.common import paths
from stages.common.params import Params
from stages.dataset.description import Description
from stages.dataset.splits import validation_count
from stages.reporting import tables
from stages.reporting.markdown import escape, markdown_table
from stages.reporting.model_results import FEW_CLASSES, ModelResult
from stages.reporting.statistics import Pair, mcnemar, unequal

SIGNIFICANCE = 0.05
SHOWN_CLASSES = 5  # smallest and largest, least and most accurate
SHOWN_FILES = 10  # that were left out


def compare_pairs(results: Sequence[ModelResult]) -> dict[tuple[str, str], Pair]:
    """McNemar's test of every two models, by their names."""
    return {
        (first.name, second.name): mcnemar(first.correct, second.correct)
        for first, second in combinations(results, 2)
    }


def most_accurate(results: Sequence[ModelResult]) -> ModelResult:
    """The model with the highest accuracy."""
    return max(results, key=lambda result: result.accuracy)


def summary(results: Sequence[ModelResult], pairs: tables.Pairs) -> str:
    """The outcome in a few sentences."""
    best = most_accurate(results)
    text = (
        f"{best.name} is the most accurate model: {best.accuracy:.2%} of {len(best.labels):,} test "
        f"images (95 % interval {best.interval.low:.1%} to {best.interval.high:.1%})."
    )
    # Bonferroni correction: among many tests, a small p may be due to chance.
    uncertain = [
        (set(names) - {best.name}).pop()
        for names, pair in pairs.items()
        if best.name in names and pair.p_value * len(pairs) >= SIGNIFICANCE
    ]
    if uncertain:
        text += f" Its lead over {' and '.join(uncertain)} is not significant; it may be chance."
    elif pairs:
        text += " Its lead over every other model is statistically significant."
    return text


def sample_notice(settings: Params) -> str:
    """What to know before reading the sample's numbers; empty for real images."""
    if settings.dataset != "sample":
        return ""
    return (
        "The images are generated and nothing was pretrained: these numbers show only that the "
        "pipeline works."
    )


def images(data: Description, settings: Params) -> str:
    """The number of classes, of images in each split and class, and what models trained on."""
    splits = []
    for split, title in tables.SPLITS.items():
        counts = np.array(data.images[split])
        per_class = f"{counts.min():,}"
        if counts.min() < counts.max():
            per_class += f" to {counts.max():,}"
        if len(counts) > FEW_CLASSES:
            per_class += f", median {np.median(counts):,.0f}"
        splits.append(f"{counts.sum():,} {title} images ({per_class} per class)")
    text = f"{len(data.classes):,} classes: {', '.join(splits[:-1])} and {splits[-1]}."
    count = sum(data.images["validation"])
    for name, model_params in settings.models.items():
        left_out = validation_count(count, model_params.validation_share)
        if left_out < count:
            text += (
                f" {name} also trained on all but {left_out:,} of the validation images; its "
                "validation accuracy is measured on those left out."
            )
        if model_params.tta_views > 1:
            text += (
                f" The validation accuracy of {name} is that of single images, its test accuracy "
                f"that of {model_params.tta_views} views of each image."
            )
    return text


def classes(results: Sequence[ModelResult], data: Description) -> list[str]:
    """Paragraphs about single classes, as Markdown.

    A few classes of unequal size are all listed; of many, only those that stand out.
    """
    counts = np.sum([*data.images.values()], axis=0)
    names = [escape(name) for name in data.classes]

    def table(rows: Sequence[dict[str, str]]) -> str:
        return markdown_table([row | {"class": escape(row["class"])} for row in rows])

    if len(names) <= FEW_CLASSES:
        rows = [tables.class_images(data, index) for index in range(len(names))]
        return [table(rows)] if unequal(counts) else []
    parts = []
    if unequal(counts):
        order = np.argsort(counts, kind="stable")
        smallest, largest = (
            ", ".join(f"{names[index]} ({counts[index]:,})" for index in indices)
            for indices in (order[:SHOWN_CLASSES], order[::-1][:SHOWN_CLASSES])
        )
        parts.append(f"Smallest classes: {smallest}. Largest classes: {largest}.")
    best = most_accurate(results)
    order = best.classes_by_accuracy()
    shown = [*order[:SHOWN_CLASSES], *order[-SHOWN_CLASSES:]]
    parts += [
        f"The {SHOWN_CLASSES} classes with the lowest and the {SHOWN_CLASSES} with the highest "
        f"accuracy of {best.name} (95 % intervals):",
        table(tables.classes([best], data, shown)),
    ]
    return parts


def skipped_files(data: Description) -> str:
    """The first files that were left out, as Markdown."""
    items = [f"- {escape(file)}" for file in data.skipped[:SHOWN_FILES]]
    others = len(data.skipped) - len(items)
    if others > 0:
        items.append(f"- and {others:,} more, listed in {paths.REPORT_HTML.name}")
    return "\n".join(items)


def markdown(
    results: Sequence[ModelResult], pairs: tables.Pairs, settings: Params, data: Description
) -> str:
    """The comparison as Markdown."""
    parts = [
        summary(results, pairs),
        markdown_table(tables.models(results, settings)),
        f"![Bar chart of the test accuracies]({paths.COMPARISON_PNG.name})",
    ]
    notices = sample_notice(settings), data.duplicates_notice
    parts[:0] = [f"**{notice}**" for notice in notices if notice]
    if pairs:
        parts += [
            "Pairwise comparison on the same test images (exact McNemar test):",
            markdown_table(tables.pairs(pairs), text_columns=2),
        ]
    parts += [images(data, settings), *classes(results, data)]
    if notice := data.skipped_notice:
        parts += [f"{notice}:", skipped_files(data)]
    return "\n\n".join(parts) + "\n"
