"""The comparison in words and pictures: a page, and the same in short for a pull request."""

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.axes import Axes
from PIL import Image

from stages.support import charts, paths
from stages.support.archive import CLASSES
from stages.support.arrays import Split
from stages.support.params import Params, Training
from stages.support.results import Result
from stages.support.statistics import BINS, Pair, mcnemar

MISTAKES = 12  # pictures shown of each model's mistakes, and of those that no model gets right


def compare_pairs(results: Sequence[Result]) -> dict[tuple[str, str], Pair]:
    """McNemar's test of every two models, by their names."""
    return {
        (first.name, second.name): mcnemar(first.right, second.right)
        for first, second in combinations(results, 2)
    }


def verdict(results: Sequence[Result], pairs: Mapping[tuple[str, str], Pair]) -> str:
    """The outcome in a few sentences."""
    best = max(results, key=lambda result: result.accuracy)
    words = (
        f"{best.name} classifies most pictures rightly: {best.accuracy:.2%} of "
        f"{len(best.labels):,} (95 % interval {best.interval.low:.1%} to {best.interval.high:.1%})."
    )
    # Bonferroni: of so many tests one may well come out small by chance.
    doubtful = [
        (set(names) - {best.name}).pop()
        for names, pair in pairs.items()
        if best.name in names and pair.p_value * len(pairs) >= 0.05
    ]
    if doubtful:
        words += (
            f" Whether it really is better than {' and '.join(doubtful)} these pictures do not "
            "settle: the difference could be chance."
        )
    elif pairs:
        words += (
            " Its lead over each other model is more than the choice of test pictures explains."
        )
    return words


def sample_notice(settings: Params) -> str:
    """What to know before reading the sample's numbers; empty for real images."""
    if settings.dataset != "sample":
        return ""
    return (
        "The images are generated and nothing was pretrained: these numbers show only that the "
        "pipeline works."
    )


def rows(results: Sequence[Result], settings: Params) -> list[dict[str, str]]:
    """The table's rows, by heading."""

    def notebook(name: str) -> dict[str, str]:
        """A column where the notebook has something to compare with, empty for a model it lacks."""
        known = settings.notebook
        return {"notebook": f"{known[name]:.2%}" if name in known else ""} if known else {}

    return [
        {
            "model": result.name,
            "test accuracy": f"{result.accuracy:.2%}",
            "95 % interval": f"{result.interval.low:.1%} to {result.interval.high:.1%}",
            "top 2": f"{result.top2_accuracy:.2%}",
            "test loss": f"{result.loss:.4f}",
            "calibration error": f"{result.reliability.expected_calibration_error:.3f}",
            "parameters": f"{result.parameters:,}",
        }
        | notebook(result.name)
        for result in results
    ]


def pair_rows(pairs: Mapping[tuple[str, str], Pair]) -> list[dict[str, str]]:
    """The rows of the pairs' table, by heading."""
    return [
        {
            "first": names[0],
            "second": names[1],
            "only the first right": f"{pair.only_first:,}",
            "only the second right": f"{pair.only_second:,}",
            "p": f"{pair.p_value:.2g}" if pair.p_value > 1e-99 else "< 1e-99",
        }
        for names, pair in pairs.items()
    ]


def shared_settings(settings: Params) -> list[dict[str, object]]:
    """The rows of the parameters that all models have in common, by heading."""
    shared = settings.model_dump(exclude={"models", "notebook_accuracy", "sample"})
    return [{"setting": name, "value": value} for name, value in shared.items()]


def own_settings(settings: Params) -> list[dict[str, object]]:
    """The rows of the models' own parameters, by heading, with a gap where one has no such own."""
    # What stands in for ImageNet's weights beside generated images is random.
    generated = {"weights": "random"} if settings.dataset == "sample" else {}
    shared = settings.model_dump(include=set(Training.model_fields))
    own = {
        name: {
            setting: value
            for setting, value in {**model.model_dump(exclude_none=True), **generated}.items()
            if setting not in shared or value != shared[setting]
        }
        for name, model in settings.models.items()
    }
    found = dict.fromkeys(setting for values in own.values() for setting in values)
    return [
        {"setting": setting, **{name: values.get(setting, "") for name, values in own.items()}}
        for setting in found
    ]


def markdown_table(rows: Sequence[Mapping[str, str]], text_columns: int = 1) -> str:
    """A Markdown table, aligned so that it reads well in a terminal too."""
    if not rows:
        return ""
    headings = list(rows[0])
    widths = [max(len(row[x]) for row in [*rows, {x: x}]) for x in headings]
    aligns = ["<" if column < text_columns else ">" for column in range(len(headings))]

    def line(cells: Iterable[str]) -> str:
        padded = (f"{c:{a}{w}}" for c, a, w in zip(cells, aligns, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = (
        "-" * (w + 2 - (a == ">")) + ":" * (a == ">") for a, w in zip(aligns, widths, strict=True)
    )
    return "\n".join([line(headings), f"|{'|'.join(rule)}|", *(line(row.values()) for row in rows)])


def markdown(results: Sequence[Result], settings: Params) -> str:
    """The comparison for a pull request."""
    pairs = compare_pairs(results)
    notice = sample_notice(settings)
    return (
        (f"**{notice}**\n\n" if notice else "")
        + f"{verdict(results, pairs)}\n\n{markdown_table(rows(results, settings))}\n\n"
        f"![Bar chart of the test accuracies]({paths.COMPARISON_PNG.name})\n\n"
        "Two models on the same pictures (exact McNemar test):\n\n"
        f"{markdown_table(pair_rows(pairs), 2)}\n"
    )


def data_uri(picture: np.ndarray) -> str:
    """A picture (32, 32, 3) float32 in [0, 1] as a PNG that stands in the page itself."""
    file = io.BytesIO()
    Image.fromarray((picture * 255).round().astype(np.uint8)).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def figures(
    results: Sequence[Result], draw: Callable[[Axes, Result], None], size: float
) -> list[str]:
    """One figure of that kind for each model, as SVG."""
    drawn = []
    for result in results:
        figure, axes = plt.subplots(figsize=(size, size))
        draw(axes, result)
        kind = draw.__name__.replace("_", " ")
        drawn.append(charts.svg(figure, f"{kind} of {result.name}; the table has the numbers"))
    return drawn


def html(results: Sequence[Result], settings: Params, test: Split) -> str:
    """The comparison as one page that needs nothing else, and no script."""
    pairs = compare_pairs(results)

    def pictures(numbers: np.ndarray, guesses: Sequence[Result]) -> list[dict[str, Any]]:
        """What the page shows of these test pictures, and what each model took them for."""
        x, _ = test.rows(numbers)
        return [
            {
                "number": int(number),
                "source": data_uri(picture),
                "true": CLASSES[results[0].labels[number]],
                "guesses": [
                    (
                        result.name,
                        CLASSES[result.predicted[number]],
                        result.probabilities[number].max(),
                    )
                    for result in guesses
                ],
            }
            for number, picture in zip(numbers, x, strict=True)
        ]

    nobody = np.flatnonzero(~np.any([result.right for result in results], axis=0))
    # The surest of all models together first: what they agree on says most.
    sureness = sum(result.probabilities[nobody].max(axis=1) for result in results)
    hardest = nobody[np.argsort(-sureness, kind="stable")][:MISTAKES]
    environment = Environment(
        loader=FileSystemLoader(paths.REPORT_TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(paths.REPORT_TEMPLATE.name).render(
        results=results,
        notice=sample_notice(settings),
        verdict=verdict(results, pairs),
        rows=rows(results, settings),
        pairs=pair_rows(pairs),
        class_rows=[
            {"class": name} | {x.name: f"{x.class_accuracies[index]:.1%}" for x in results}
            for index, name in enumerate(CLASSES)
        ],
        bins=BINS,
        dataset=settings.dataset,
        shared_settings=shared_settings(settings),
        own_settings=own_settings(settings),
        provenance=[
            {"model": x.name, **x.software, "SHA-256 of models/MODEL.keras": x.sha256}
            for x in results
        ],
        accuracies=charts.svg(
            charts.accuracies(results, settings.notebook),
            "bar chart of the test accuracies; the table above has the numbers",
        ),
        learning_curves=charts.svg(
            charts.learning_curves(results, rows=2, columns=1),
            "accuracy and loss of every model by epoch, on training and validation pictures",
        ),
        accuracy_by_minutes=charts.svg(
            charts.accuracy_by_minutes(results),
            "validation accuracy of every model against the minutes of its training",
        ),
        confusion_matrices=figures(results, charts.confusion_matrix, 5.2),
        reliability=figures(results, charts.reliability, 3.6),
        mistakes={
            result.name: pictures(result.most_confident_mistakes(MISTAKES), [result])
            for result in results
        },
        nobody_count=len(nobody),
        nobody=pictures(hardest, results),
    )
