"""The comparison as one self-contained HTML page without scripts."""

import base64
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.axes import Axes
from PIL import Image

from stages.common.params import Params
from stages.dataset.classes import CLASSES
from stages.dataset.splits import Split
from stages.reporting import charts, tables
from stages.reporting.model_results import ModelResult
from stages.reporting.statistics import BINS
from stages.reporting.summary import SIGNIFICANCE, compare_pairs, sample_notice, summary

TEMPLATE = Path(__file__).with_name("page.html")
MAX_MISTAKES = 12  # images shown per model, and of those that every model misclassifies


def data_uri(image: np.ndarray) -> str:
    """An image (32, 32, 3) float32 in [0, 1] as a PNG in a `data:` URI."""
    file = io.BytesIO()
    Image.fromarray((image * 255).round().astype(np.uint8)).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def svg_per_model(
    results: Sequence[ModelResult], draw: Callable[[Axes, ModelResult], None], inches: float
) -> list[str]:
    """One square figure per model, as SVG."""
    elements = []
    for result in results:
        figure, axes = plt.subplots(figsize=(inches, inches))
        draw(axes, result)
        kind = draw.__name__.replace("_", " ")
        elements.append(charts.svg(figure, f"{kind} of {result.name}; the table has the numbers"))
    return elements


def cards(indices: np.ndarray, results: Sequence[ModelResult], test: Split) -> list[dict[str, Any]]:
    """The test images at `indices` with their class and the predictions of `results`."""
    images, _ = test.rows(indices)
    labels = results[0].labels
    return [
        {
            "index": int(index),
            "source": data_uri(image),
            "true": CLASSES[labels[index]],
            "predictions": [
                (
                    result.name,
                    CLASSES[result.predicted[index]],
                    result.probabilities[index].max(),
                )
                for result in results
            ],
        }
        for index, image in zip(indices, images, strict=True)
    ]


def html(results: Sequence[ModelResult], settings: Params, test: Split) -> str:
    """The page."""
    pairs = compare_pairs(results)
    missed_by_all = np.flatnonzero(~np.any([result.correct for result in results], axis=0))
    confidence = sum(result.probabilities[missed_by_all].max(axis=1) for result in results)
    hardest = missed_by_all[np.argsort(-confidence, kind="stable")][:MAX_MISTAKES]
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE.name).render(
        dataset=settings.dataset,
        notice=sample_notice(settings),
        summary=summary(results, pairs),
        test_images=len(results[0].labels),
        models=tables.models(results, settings),
        accuracies=charts.svg(
            charts.accuracies(results, settings.notebook),
            "bar chart of the test accuracies; the table above has the numbers",
        ),
        pairs=tables.pairs(pairs),
        significance=SIGNIFICANCE / max(len(pairs), 1),
        learning_curves=charts.svg(
            charts.learning_curves(results, rows=2, columns=1),
            "accuracy and loss of every model by epoch, on training and validation images",
        ),
        accuracy_by_training_time=charts.svg(
            charts.accuracy_by_training_time(results),
            "validation accuracy of every model by minutes of training",
        ),
        without_training_time=[result.name for result in results if not result.minutes],
        confusion_matrices=svg_per_model(results, charts.confusion_matrix, 5.2),
        class_accuracies=tables.class_accuracies(results),
        bins=BINS,
        reliability=svg_per_model(results, charts.reliability, 3.6),
        mistakes={
            result.name: cards(result.most_confident_mistakes(MAX_MISTAKES), [result], test)
            for result in results
        },
        missed_by_all=len(missed_by_all),
        hardest=cards(hardest, results, test),
        shared_params=tables.shared_params(settings),
        model_params=tables.model_params(settings),
        provenance=tables.provenance(results),
    )
