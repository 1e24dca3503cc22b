"""The comparison in a few sentences and tables, for a terminal and for pull requests."""

from collections.abc import Sequence
from itertools import combinations

from stages.common import paths
from stages.common.params import Params
from stages.reporting import tables
from stages.reporting.markdown import markdown_table
from stages.reporting.model_results import ModelResult
from stages.reporting.statistics import Pair, mcnemar

SIGNIFICANCE = 0.05


def compare_pairs(results: Sequence[ModelResult]) -> dict[tuple[str, str], Pair]:
    """McNemar's test of every two models, by their names."""
    return {
        (first.name, second.name): mcnemar(first.correct, second.correct)
        for first, second in combinations(results, 2)
    }


def summary(results: Sequence[ModelResult], pairs: tables.Pairs) -> str:
    """The outcome in a few sentences."""
    best = max(results, key=lambda result: result.accuracy)
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


def markdown(results: Sequence[ModelResult], settings: Params) -> str:
    """The comparison as Markdown."""
    pairs = compare_pairs(results)
    parts = [
        summary(results, pairs),
        markdown_table(tables.models(results, settings)),
        f"![Bar chart of the test accuracies]({paths.COMPARISON_PNG.name})",
    ]
    if notice := sample_notice(settings):
        parts.insert(0, f"**{notice}**")
    if pairs:
        parts += [
            "Pairwise comparison on the same test images (exact McNemar test):",
            markdown_table(tables.pairs(pairs), text_columns=2),
        ]
    return "\n\n".join(parts) + "\n"
