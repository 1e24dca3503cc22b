"""The comparison's charts, drawn with Matplotlib and saved as PNG or SVG."""

import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler
from matplotlib.ticker import LogLocator, NullLocator

from stages.common.atomic import atomic_write
from stages.common.console import printable
from stages.reporting.model_results import ModelResult
from stages.reporting.statistics import BINS
from stages.reporting.tables import baseline

INK = "#0a0b0c"  # color of text and lines; the page replaces it by its own
# Matplotlib's colors, four of them darker: each has a contrast of 3 : 1 or more, as WCAG 2.2 asks
# of charts, with white and with the page's dark background.
COLORS = [
    "#1f77b4",
    "#e06c00",
    "#2ca02c",
    "#d62728",
    "#9467bd",
    "#8c564b",
    "#d95fb0",
    "#7f7f7f",
    "#8f9014",
    "#0f99a8",
]
IMAGE_DPI = 240  # of images within a chart of the page, for screens of high resolution
MAX_LABEL = 16  # characters of a class name in a chart
NAMED_CLASSES = 10  # at most, on each axis of a confusion matrix of many classes
WIDTH = 6.0  # inches of a chart that stands alone; on a phone, its text would be too small in more

matplotlib.rcdefaults()  # the user's settings would change the charts
# Its font lacks Chinese, for example: PNG files have boxes there. Browsers have other fonts.
warnings.filterwarnings("ignore", "Glyph .* missing from font")
plt.rcParams.update(
    {
        **dict.fromkeys(
            ["text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor"], INK
        ),
        **dict.fromkeys(["xtick.color", "ytick.color"], INK),
        "axes.prop_cycle": cycler(color=COLORS),  # C0, C1, ...
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.constrained_layout.use": True,
        "svg.fonttype": "none",  # text stays text, for search and screen readers
        "svg.hashsalt": "",  # else the IDs of its elements would be random
        "text.parse_math": False,  # names are not formulas
    }
)


def columns(charts: int) -> int:
    """How many charts to draw in a row: at most three, in rows as even as possible."""
    rows = math.ceil(charts / 3)
    return math.ceil(charts / rows)


def accuracies(results: Sequence[ModelResult], notebook: Mapping[str, float]) -> Figure:
    """One bar per model with its test accuracy in percent and its 95 % confidence interval.

    A diamond is the notebook's accuracy, for the models in `notebook`; a circle is the balanced
    accuracy, if classes are of unequal size.
    """
    figure, axes = plt.subplots(figsize=(WIDTH, 1.5 + 0.5 * len(results)))
    names = [result.name for result in results]
    lengths = 100 * np.array([result.accuracy for result in results])
    errors = abs(100 * np.array([result.interval for result in results]).T - lengths)
    colors = [f"C{index}" for index in range(len(results))]
    bars = axes.barh(names, lengths, color=colors, xerr=errors, ecolor=INK, capsize=4)
    axes.bar_label(bars, fmt="%.2f %%", padding=4)
    marks, title, marker = notebook, "notebook", "D"
    if results[0].unequal_classes:  # then the images are not the notebook's
        marks = {result.name: result.balanced_accuracy for result in results}
        title, marker = "balanced accuracy", "o"
    marked = [index for index, name in enumerate(names) if name in marks]
    if marked:
        axes.scatter(
            [100 * marks[names[index]] for index in marked],
            np.array(marked) + 0.28,  # below the interval
            marker=marker,
            s=30,
            facecolor="white",
            edgecolor=INK,
            zorder=3,
            label=title,
        )
        figure.legend(loc="outside lower right", frameon=False)
    chance, label = 100 * results[0].largest_class_accuracy, baseline(results[0])
    axes.axvline(chance, color="grey", linestyle=":", linewidth=1)
    axes.text(chance, 1, label, color="grey", ha="center", transform=axes.get_xaxis_transform())
    axes.invert_yaxis()  # the first model on top
    axes.set_title("Test accuracy with 95 % confidence intervals", pad=18)
    axes.set(xlabel="test accuracy (%)", xlim=(0, 1.18 * max(*(lengths + errors[1]), chance)))
    return figure


def learning_curves(results: Sequence[ModelResult], rows: int, columns: int) -> Figure:
    """Accuracy in percent and loss by epoch, all models: validation solid, training dashed.

    A triangle is a loss beyond the axis. Otherwise a single epoch with a huge loss would flatten
    every curve.
    """
    figure, panels = plt.subplots(rows, columns, figsize=(WIDTH * columns, 4.5 * rows))
    validation_losses = [value for result in results for value in result.curves["val_loss"]]
    highest = max(
        validation_losses + [x for result in results for x in result.curves["train_loss"]]
    )
    limit = 1.5 * np.percentile(validation_losses, 80)
    cut = highest > 2 * limit
    styles: dict[str, dict[str, Any]] = {
        "val": {"marker": ".", "markersize": 5},
        "train": {"linestyle": "--", "linewidth": 1},
    }
    for index, result in enumerate(results):
        color = f"C{index}"
        for split, style in styles.items():
            accuracy, loss = (np.array(result.curves[f"{split}_{x}"]) for x in ("accuracy", "loss"))
            epochs = np.arange(1, len(loss) + 1)
            panels[0].plot(epochs, 100 * accuracy, color=color, **style)
            panels[1].plot(epochs, loss, color=color, **style)
            if cut:
                beyond = epochs[loss > limit]
                top = np.full(len(beyond), limit)
                panels[1].scatter(beyond, top, marker="^", color=color, clip_on=False)
    panels[0].set(title="accuracy by epoch", xlabel="epoch", ylabel="accuracy (%)")
    panels[1].set(title="loss by epoch", xlabel="epoch", ylabel="loss")
    if cut:
        panels[1].set_ylim(0, limit)
        title = f"loss by epoch (triangles: beyond the axis, up to {highest:,.4g})"
        panels[1].set_title(title, pad=12)
    for axes in panels:
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(
        panels[0].lines[:: len(styles)],
        [result.name for result in results],
        title="solid: validation, dashed: training",
        loc="outside lower center",
        ncols=2 * columns,
        frameon=False,
    )
    return figure


def accuracy_by_minutes(results: Sequence[ModelResult]) -> Figure:
    """Validation accuracy by minutes of training, of models with a recorded training time."""
    figure, axes = plt.subplots(figsize=(WIDTH, 4.5))
    labels = []
    for index, result in enumerate(results):
        if result.minutes:
            accuracy = 100 * np.array(result.curves["val_accuracy"])
            axes.plot(result.minutes, accuracy, color=f"C{index}", marker=".")
            minutes = f"{result.minutes[-1]:.1f} min"
            labels.append(f"{result.name}: {accuracy[-1]:.1f} % after {minutes}")
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
        figure.legend(axes.lines, labels, loc="outside lower center", frameon=False)
    else:
        axes.text(0.5, 0.5, "not recorded", ha="center", transform=axes.transAxes)
    return figure


def shorten(name: str) -> str:
    """A class name as a chart has space for it, with its beginning and its end."""
    name = printable(name)
    if len(name) <= MAX_LABEL:
        return name
    return f"{name[: MAX_LABEL // 2]}…{name[-MAX_LABEL // 2 + 1 :]}"


def confusion_matrix(axes: Axes, result: ModelResult) -> None:
    """Draw a confusion matrix in percent of each true class: a row is one true class.

    Few classes have numbers. Many have a scale of colors, on which rare confusions stand out, and
    only some have their names.
    """
    matrix = result.confusion_matrix
    count = len(matrix)
    percent = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    step = math.ceil(count / NAMED_CLASSES) if result.many_classes else 1
    named = f" (1 of {step} classes is named)" if step > 1 else ""
    if result.many_classes:
        # An image: a million cells as paths would take minutes and gigabytes.
        scale = PowerNorm(0.5, vmin=0, vmax=100)
        extent = 0, count, count, 0
        # Of classes that share a pixel, `nearest` shows one: a mean would fade out the diagonal.
        image = axes.imshow(
            percent, cmap="Blues", norm=scale, extent=extent, interpolation="nearest"
        )
        ticks = [0, 1, 5, 20, 50, 100]
        axes.figure.colorbar(image, ax=axes, ticks=ticks, format="{x:g} %", shrink=0.6, aspect=30)
    else:
        axes.pcolormesh(percent, cmap="Blues", vmin=0, vmax=100)
        for (true, predicted), value in np.ndenumerate(percent):
            axes.text(
                predicted + 0.5,
                true + 0.5,
                f"{value:.0f}",
                ha="center",
                va="center",
                color="white" if value > 50 else "black",
                fontsize=min(9, 140 / count),
            )
        axes.invert_yaxis()
    centers = np.arange(count)[::step] + 0.5
    names = [shorten(name) for name in result.classes[::step]]
    axes.set_xticks(centers, names, rotation=45, ha="right")
    axes.set_yticks(centers, names)
    axes.set_aspect("equal")
    title = f"{result.name}: {result.accuracy:.2%}"
    axes.set(title=title, xlabel=f"predicted{named}", ylabel="true")


def reliability(axes: Axes, result: ModelResult) -> None:
    """Draw accuracy by confidence, in percent, with the diagonal of a perfectly calibrated model.

    A point's area grows with the number of images in its bin.
    """
    bins = result.reliability
    filled = bins.counts > 0
    confidence, accuracy = 100 * bins.confidence[filled], 100 * bins.accuracy[filled]
    axes.plot([0, 100], [0, 100], color="grey", linestyle=":")
    axes.plot(confidence, accuracy, color="C0", linewidth=1)
    sizes = 10 + 40 * BINS * bins.counts[filled] / bins.counts.sum()
    axes.scatter(confidence, accuracy, s=sizes, color="C0", clip_on=False)
    axes.set_aspect("equal")
    error = 100 * bins.expected_calibration_error
    axes.set_title(f"{result.name}: {result.tendency}\ncalibration error {error:.1f} %", pad=12)
    axes.set(xlabel="confidence (%)", ylabel="accuracy (%)", xlim=(0, 100), ylim=(0, 100))


def confusion_matrices(results: Sequence[ModelResult]) -> Figure:
    """One confusion matrix per model."""
    across = columns(len(results))
    down = math.ceil(len(results) / across)
    figure, panels = plt.subplots(down, across, figsize=(5.5 * across, 5.2 * down), squeeze=False)
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
    prefix = re.sub(r"\W+", "-", description) + "-"  # IDs must be unique within the page

    def attribute(name: str, value: str) -> str:
        if name == "id":
            return prefix + value
        if name == "href":
            return f"#{prefix}{value[1:]}" if value.startswith("#") else value
        return value.replace("url(#", f"url(#{prefix}").replace(INK, "currentColor")

    file = io.BytesIO()
    no_metadata = dict.fromkeys(["Creator", "Date", "Format", "Type"])
    figure.savefig(file, format="svg", transparent=True, metadata=no_metadata, dpi=IMAGE_DPI)
    plt.close(figure)
    root = ElementTree.fromstring(file.getvalue())
    for element in root.iter():
        element.tag = without_namespace(element.tag)
        names = {without_namespace(name): value for name, value in element.items()}
        element.attrib = {name: attribute(name, value) for name, value in names.items()}
    del root.attrib["width"], root.attrib["height"]
    root.attrib |= {"role": "img", "aria-label": description}
    return ElementTree.tostring(root, encoding="unicode")


def without_namespace(name: str) -> str:
    """An XML name as HTML spells it inside an `<svg>` element."""
    return name.rpartition("}")[2]
