"""The comparison's charts, drawn with Matplotlib and saved as PNG or SVG."""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # draws to files, without a display
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from stages.common.atomic import atomic_write
from stages.dataset.classes import CLASSES
from stages.reporting.model_results import ModelResult
from stages.reporting.statistics import BINS

INK = "#0a0b0c"  # color of text and lines; the page replaces it by its own
plt.rcParams.update(
    {
        **dict.fromkeys(
            ["text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor"], INK
        ),
        **dict.fromkeys(["xtick.color", "ytick.color"], INK),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.constrained_layout.use": True,
        "svg.fonttype": "none",  # text stays text, for search and screen readers
        "svg.hashsalt": "",  # else the IDs of its elements would be random
    }
)


def accuracies(results: Sequence[ModelResult], notebook: Mapping[str, float]) -> Figure:
    """One bar per model with its test accuracy in percent and its 95 % confidence interval.

    A diamond is the notebook's accuracy, for the models in `notebook`.
    """
    figure, axes = plt.subplots(figsize=(1.2 + 1.6 * len(results), 4.8))
    names = [result.name for result in results]
    heights = 100 * np.array([result.accuracy for result in results])
    errors = abs(100 * np.array([result.interval for result in results]).T - heights)
    colors = [f"C{index}" for index in range(len(results))]
    bars = axes.bar(names, heights, color=colors, yerr=errors, ecolor=INK, capsize=4)
    axes.bar_label(bars, fmt="%.2f %%", padding=3)
    marked = [index for index, name in enumerate(names) if name in notebook]
    if marked:
        axes.scatter(
            np.array(marked) + 0.3,  # next to the interval
            [100 * notebook[names[index]] for index in marked],
            marker="D",
            s=36,
            facecolor="white",
            edgecolor=INK,
            zorder=3,
            label="notebook",
        )
        axes.legend(loc="upper right", bbox_to_anchor=(1, -0.08), frameon=False)
    chance = 100 / len(CLASSES)
    axes.axhline(chance, color="grey", linestyle=":", linewidth=1)
    axes.text(1, chance, " chance", color="grey", va="center", transform=axes.get_yaxis_transform())
    axes.set(
        title="Test accuracy with 95 % confidence intervals",
        xlabel="model",
        ylabel="test accuracy (%)",
    )
    axes.margins(y=0.12)
    return figure


def learning_curves(results: Sequence[ModelResult], rows: int, columns: int) -> Figure:
    """Accuracy and loss by epoch, all models: validation solid, training dashed."""
    figure, panels = plt.subplots(rows, columns, figsize=(5.6 * columns, 4.5 * rows))
    for axes, quantity in zip(panels, ["accuracy", "loss"], strict=True):
        for index, result in enumerate(results):
            style = {"color": f"C{index}", "marker": ".", "markersize": 4}
            for split, line in (("val", "-"), ("train", "--")):
                values = result.curves[f"{split}_{quantity}"]
                axes.plot(
                    range(1, len(values) + 1),
                    values,
                    linestyle=line,
                    alpha=1 if split == "val" else 0.5,
                    label=result.name if split == "val" else None,
                    **style,
                )
        axes.set(title=f"{quantity} by epoch", xlabel="epoch", ylabel=quantity)
        axes.xaxis.get_major_locator().set_params(integer=True)
    # Otherwise a single epoch with a huge loss would flatten every other curve.
    losses = [value for result in results for value in result.curves["val_loss"]]
    panels[1].set_ylim(0, 1.5 * np.nanpercentile(losses, 80))
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        title="solid: validation, dashed: training",
        loc="outside lower center",
        ncols=2 * columns,
        frameon=False,
    )
    return figure


def accuracy_by_training_time(results: Sequence[ModelResult]) -> Figure:
    """Validation accuracy by minutes of training, of models with a recorded training time."""
    figure, axes = plt.subplots(figsize=(8.5, 4.5))
    for index, result in enumerate(results):
        if result.minutes:
            accuracy = 100 * np.array(result.curves["val_accuracy"])
            axes.plot(
                result.minutes,
                accuracy,
                color=f"C{index}",
                marker=".",
                label=f"{result.name}: {accuracy[-1]:.1f} % after {result.minutes[-1]:.1f} min",
            )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(
        title="Validation accuracy over training time",
        xlabel="minutes",
        ylabel="validation accuracy (%)",
    )
    if axes.lines:
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def confusion_matrix(axes: Axes, result: ModelResult) -> None:
    """Draw a confusion matrix in percent of each true class: a row is one true class."""
    matrix = result.confusion_matrix
    percent = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.pcolormesh(percent, cmap="Blues", vmin=0, vmax=100)
    for (true, predicted), value in np.ndenumerate(percent):
        axes.text(
            predicted + 0.5,
            true + 0.5,
            f"{value:.0f}",
            ha="center",
            va="center",
            color="white" if value > 50 else "black",
            fontsize=9,
        )
    centers = np.arange(len(CLASSES)) + 0.5
    axes.set_xticks(centers, CLASSES, rotation=45, ha="right")
    axes.set_yticks(centers, CLASSES)
    axes.invert_yaxis()
    axes.set_aspect("equal")
    axes.set(title=f"{result.name}: {result.accuracy:.2%}", xlabel="predicted", ylabel="true")


def reliability(axes: Axes, result: ModelResult) -> None:
    """Draw accuracy by confidence, with the diagonal of a perfectly calibrated model.

    A point's area grows with the number of images in its bin.
    """
    bins = result.reliability
    filled = bins.counts > 0
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
    axes.plot(bins.confidence[filled], bins.accuracy[filled], color="C0", linewidth=1)
    axes.scatter(
        bins.confidence[filled],
        bins.accuracy[filled],
        s=10 + 40 * BINS * bins.counts[filled] / bins.counts.sum(),
        color="C0",
        clip_on=False,
    )
    axes.set_aspect("equal")
    error = bins.expected_calibration_error
    axes.set_title(f"{result.name}\ncalibration error {error:.3f}", pad=12)
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))


def confusion_matrices(results: Sequence[ModelResult]) -> Figure:
    """One confusion matrix per model, two in a row."""
    rows = -(-len(results) // 2)
    figure, panels = plt.subplots(rows, 2, figsize=(11, 5.2 * rows), squeeze=False)
    for axes in panels.flat[len(results) :]:
        axes.remove()
    for axes, result in zip(panels.flat, results, strict=False):
        confusion_matrix(axes, result)
    figure.suptitle("Confusion matrices, percent of each true class")
    return figure


def save_png(figure: Figure, path: Path) -> None:
    """Write a PNG; with one version of Matplotlib, equal figures give equal bytes."""
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=120)
    plt.close(figure)


def svg(figure: Figure, description: str) -> str:
    """The figure as an `<svg>` element with the page's width, text color and background."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    plt.close(figure)
    element = file.getvalue()
    element = element[element.index("<svg") :].replace(INK, "currentColor")
    # IDs must be unique within the page.
    unique = re.sub(r"\W+", "-", description)
    element = re.sub(r'(id="|url\(#|href="#)', rf"\1{unique}-", element)
    element = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', "", element, count=1)
    return element.replace("<svg", f'<svg role="img" aria-label="{description}"', 1)
