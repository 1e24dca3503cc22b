"""The comparison in a few sentences and tables, for a terminal and for pull requests."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from stages.common import paths
from stages.common.console import first_few, left_out_notice
from stages.common.params import Params
from stages.dataset import training_length
from stages.dataset.description import Description
from stages.dataset.splits import validation_count
from stages.reporting import tables
from stages.reporting.markdown import escape, markdown_table
from stages.reporting.model_results import FEW_CLASSES, ModelResult
from stages.reporting.statistics import SIGNIFICANCE, Pair, balanced_mcnemar, mcnemar, unequal

SHOWN_CLASSES = 5  # smallest and largest, least and most accurate
SHOWN_FILES = 10  # that were left out


def compare_pairs(results: Sequence[ModelResult]) -> dict[tuple[str, str], Pair]:
    """McNemar's test of every two models, by their names."""

    def compare(first: ModelResult, second: ModelResult) -> Pair:
        if first.unequal_classes:
            return balanced_mcnemar(first.correct, second.correct, first.labels)
        return mcnemar(first.correct, second.correct)

    return {(pair[0].name, pair[1].name): compare(*pair) for pair in combinations(results, 2)}


def pairs_test(results: Sequence[ModelResult]) -> str:
    """The test that compares two models."""
    if results[0].unequal_classes:
        return "McNemar's test of the balanced accuracies"
    return "exact McNemar test"


def without_model(result: ModelResult) -> str:
    """What a model must be better than."""
    return "naming the largest class each time" if result.unequal_classes else "chance"


def most_accurate(results: Sequence[ModelResult]) -> ModelResult:
    """The model with the highest score; of those that fail only if all do."""
    return max(results, key=lambda result: (not result.failure, result.score))


def summary(results: Sequence[ModelResult], pairs: tables.Pairs) -> str:
    """The outcome in a few sentences."""
    best = most_accurate(results)
    if best.failure:
        return (
            f"No model is better than {without_model(best)} "
            f"({best.largest_class_accuracy:.2%} of {len(best.labels):,} test images)."
        )
    text = (
        f"{best.accuracy:.2%} of {len(best.labels):,} test images (95 % interval "
        f"{best.interval.low:.1%} to {best.interval.high:.1%})."
    )
    if best.unequal_classes:
        text = (
            f"{best.name} has the highest balanced accuracy, the mean of the classes' accuracies: "
            f"{best.balanced_accuracy:.2%}. It is right about {text}"
        )
    else:
        text = f"{best.name} is the most accurate model: {text}"
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


def warnings(results: Sequence[ModelResult]) -> list[str]:
    """What to know of models that fail, or miss classes, and what to do about it."""
    best, texts = most_accurate(results), {}
    for result in results:
        if result.failure:
            texts[result.name] = (
                f"{result.name} is no better than {without_model(result)}: {result.failure}."
            )
        elif result.missed_classes and not result.many_classes:
            texts[result.name] = (
                f"{result.name} classifies no image of {first_few(result.missed_classes)} "
                f"correctly: there it is no better than {without_model(result)}."
            )
    if not texts:
        return []
    other = "pretrained weights" if best.name in texts else best.name
    return [
        *texts.values(),
        f"What helps: {other}; more images; more steps (epochs or training.min_steps); a lower "
        "learning_rate.",
    ]


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
        left_out = validation_count(count, model_params)
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
    recomputed = [
        name
        for name, model_params in settings.models.items()
        if training_length.recomputes_batch_norm(*tables.fitted(model_params, data))
    ]
    if recomputed:
        text += (
            f" The averages of batch normalization of {' and '.join(recomputed)} were computed "
            "anew after training; validation accuracies are from before."
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
        *map(escape, warnings(results)),
        markdown_table(tables.models(results, settings)),
        f"![Bar chart of the test accuracies]({paths.COMPARISON_PNG.name})",
    ]
    parts[:0] = [f"**{notice}** {escape(first_few(x))}" for notice, x in data.same_images.items()]
    if notice := sample_notice(settings):
        parts.insert(0, f"**{notice}**")
    if pairs:
        parts += [
            f"Pairwise comparison on the same test images ({pairs_test(results)}):",
            markdown_table(tables.pairs(pairs), text_columns=2),
        ]
    parts += [images(data, settings), *classes(results, data)]
    if notice := left_out_notice(data.left_out):
        parts.append(escape(f"{notice}."))
    if notice := data.skipped_notice:
        parts += [f"{notice}:", skipped_files(data)]
    return "\n\n".join(parts) + "\n"
