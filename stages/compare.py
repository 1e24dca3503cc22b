"""Compare the models.

Reads data/evaluations/ and metrics/curves/. Writes to metrics/: comparison.{json,md,png},
learning_curves.png and confusion_matrices.png, and prints the table.
"""

import csv
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # draws to files, also where there is no screen
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from stages.support import params, paths
from stages.support.archive import CLASSES
from stages.support.errors import StageError, one_line_errors
from stages.support.files import only_one, replacing, write_json

Metrics = dict[str, dict[str, Any]]
Curves = dict[str, dict[str, list[float]]]


def read_metrics(models: list[str]) -> Metrics:
    """What `evaluate` measured, by model."""
    return {
        name: json.loads((paths.EVALUATIONS / name / "metrics.json").read_text(encoding="utf-8"))
        for name in models
    }


def read_curves(models: list[str]) -> Curves:
    """Learning curves by model and column, one number an epoch."""
    curves: Curves = {}
    for name in models:
        with (paths.CURVES / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        curves[name] = {column: [float(row[column]) for row in rows] for column in rows[0]}
    return curves


def markdown_table(metrics: Metrics) -> str:
    """The comparison as a Markdown table, aligned so that it reads well in a terminal too."""
    width = max(len(name) for name in [*metrics, "model"])
    rows = [
        f"| {'model':<{width}} | test accuracy | test loss | parameters |",
        f"|{'-' * (width + 2)}|--------------:|----------:|-----------:|",
    ]
    rows += [
        f"| {name:<{width}} | {row['accuracy']:>13.2%} | {row['loss']:>9.4f} | "
        f"{row['parameters']:>10,} |"
        for name, row in metrics.items()
    ]
    return "\n".join(rows) + "\n"


def draw_accuracies(metrics: Metrics) -> Figure:
    """One bar a model, its test accuracy in percent on top."""
    figure, axes = plt.subplots(figsize=(1.2 + 1.6 * len(metrics), 4.8), layout="constrained")
    colours = [f"C{index}" for index in range(len(metrics))]
    bars = axes.bar(
        list(metrics), [100 * row["accuracy"] for row in metrics.values()], color=colours
    )
    axes.bar_label(bars, fmt="%.2f %%", padding=2)
    axes.axhline(100 / len(CLASSES), color="grey", linestyle=":", linewidth=1)
    axes.text(
        1,
        100 / len(CLASSES),
        " chance",
        color="grey",
        va="center",
        transform=axes.get_yaxis_transform(),
    )
    axes.set(title="Accuracy on the test pictures", xlabel="model", ylabel="test accuracy (%)")
    axes.margins(y=0.1)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_curves(curves: Curves) -> Figure:
    """Accuracy and loss by epoch, all models in each: validation solid, training dashed."""
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for axes, quantity in zip(panels, ["accuracy", "loss"], strict=True):
        for index, (name, columns) in enumerate(curves.items()):
            style = {"color": f"C{index}", "marker": ".", "markersize": 4}
            axes.plot(columns["epoch"], columns[f"val_{quantity}"], label=name, **style)
            axes.plot(columns["epoch"], columns[quantity], linestyle="--", alpha=0.5, **style)
        axes.set(title=f"{quantity} by epoch", xlabel="epoch", ylabel=quantity)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
    # A network that diverges for an epoch would otherwise flatten every other curve.
    highest = np.percentile(
        [value for columns in curves.values() for value in columns["val_loss"]], 90
    )
    panels[1].set_ylim(0, 1.5 * highest)
    panels[0].legend(title="solid: validation, dashed: training", fontsize="small")
    return figure


def draw_confusion_matrices(metrics: Metrics) -> Figure:
    """One panel a model: rows are true classes, columns predicted ones, in percent of a row."""
    columns = 2
    rows = -(-len(metrics) // columns)
    figure, panels = plt.subplots(
        rows, columns, figsize=(11, 5.2 * rows), layout="constrained", squeeze=False
    )
    for axes in panels.flat[len(metrics) :]:
        axes.remove()
    for axes, (name, row) in zip(panels.flat, metrics.items(), strict=False):
        matrix = np.array(row["confusion_matrix"], float)
        percent = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
        for (true, predicted), value in np.ndenumerate(percent):
            colour = "white" if value > 50 else "black"
            axes.text(
                predicted, true, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=8
            )
        axes.set_xticks(range(len(CLASSES)), CLASSES, rotation=45, ha="right")
        axes.set_yticks(range(len(CLASSES)), CLASSES)
        axes.set(title=f"{name}: {row['accuracy']:.2%}", xlabel="predicted", ylabel="true")
    figure.suptitle("Confusion matrices, percent of each true class")
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a PNG; equal figures give equal bytes with one version of Matplotlib."""
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120)
    plt.close(figure)


@one_line_errors
def main() -> None:
    models = list(params.load().models)
    only_one("compare")
    try:
        metrics, curves = read_metrics(models), read_curves(models)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise StageError(f"a model's results cannot be read: {error}; run `dvc repro`") from None

    table = markdown_table(metrics)
    summary = {
        name: {key: row[key] for key in ("accuracy", "loss", "parameters")}
        for name, row in metrics.items()
    }
    with replacing(paths.COMPARISON_MD) as partial:
        partial.write_text(table, encoding="utf-8")
    write_json(paths.COMPARISON_JSON, summary)
    save(draw_accuracies(metrics), paths.COMPARISON_PNG)
    save(draw_curves(curves), paths.CURVES_PNG)
    save(draw_confusion_matrices(metrics), paths.CONFUSION_PNG)
    print(
        f"\n{table}\nwrote {paths.COMPARISON_MD} and the picture {paths.COMPARISON_PNG.resolve()}"
    )


if __name__ == "__main__":
    main()
