"""The comparison as one self-contained HTML page without scripts."""

import base64
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from PIL import Image

from stages.common.console import left_out_notice
from stages.common.params import Params
from stages.dataset.description import Description
from stages.dataset.splits import Split
from stages.reporting import charts, summary, tables
from stages.reporting.model_results import ModelResult
from stages.reporting.statistics import BINS, SIGNIFICANCE

TEMPLATE = Path(__file__).with_name("page.html")
MAX_MISTAKES = 12  # images shown per model, and of those that every model misclassifies
IMAGE_WIDTH = 96  # of a shown image, in CSS pixels: screens of high resolution have two for each


def data_uri(image: np.ndarray) -> str:
    """An image (H, W, 3) uint8 in a `data:` URI.

    A PNG if it is smaller than shown, so that its pixels are exact; else a JPEG, a fifth as large.
    """
    file, picture = io.BytesIO(), Image.fromarray(image)
    if picture.width < IMAGE_WIDTH:
        kind = "png"
        picture.save(file, "PNG", optimize=True)
    else:
        kind = "jpeg"
        picture.thumbnail((2 * IMAGE_WIDTH,) * 2)
        picture.save(file, "JPEG", quality=90)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def square_svg(
    draw: Callable[[Axes, ModelResult], None], result: ModelResult, inches: float, description: str
) -> str:
    """A square figure of one model, as SVG."""
    figure, axes = plt.subplots(figsize=(inches, inches))
    draw(axes, result)
    return charts.svg(figure, f"{result.name}: {description}")


def cards(
    indices: np.ndarray, results: Sequence[ModelResult], test: Split, files: Sequence[str]
) -> list[dict[str, Any]]:
    """The test images at `indices` with file, class and the predictions of `results`."""
    classes, labels = results[0].classes, results[0].labels
    return [
        {
            "file": files[index],
            "source": data_uri(image),
            "true": classes[labels[index]],
            "predictions": [
                (
                    result.name,
                    classes[result.predicted[index]],
                    result.probabilities[index].max(),
                )
                for result in results
            ],
        }
        for index, image in zip(indices, test.images(indices), strict=True)
    ]


def html(
    results: Sequence[ModelResult],
    pairs: tables.Pairs,
    settings: Params,
    data: Description,
    test: Split,
    files: Sequence[str],
) -> str:
    """The page; `files` are the names of the test images."""
    best, many_classes = summary.most_accurate(results), results[0].many_classes
    order = best.classes_by_accuracy() if many_classes else range(len(data.classes))
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
        dataset=settings.dataset_title,
        sample_notice=summary.sample_notice(settings),
        same_images=data.same_images,
        summary=summary.summary(results, pairs),
        warnings=summary.warnings(results),
        images=summary.images(data, settings),
        left_out_notice=left_out_notice(data.left_out),
        skipped_notice=data.skipped_notice,
        skipped=data.skipped,
        image_size=test.image_shape[:2],
        image_width=IMAGE_WIDTH,
        many_classes=many_classes,
        best=best.name,
        test_images=len(results[0].labels),
        models=tables.models(results, settings),
        accuracies=charts.svg(
            charts.accuracies(results, settings.notebook),
            "bar chart of the test accuracies; the table above has the numbers",
        ),
        pairs=tables.pairs(pairs),
        pairs_test=summary.pairs_test(results),
        significance=SIGNIFICANCE / max(len(pairs), 1),
        learning_curves=charts.svg(
            charts.learning_curves(results, rows=2, columns=1),
            "accuracy and loss of every model by epoch, on training and validation images",
        ),
        accuracy_by_minutes=charts.svg(
            charts.accuracy_by_minutes(results),
            "validation accuracy of every model by minutes of training",
        ),
        without_training_time=[result.name for result in results if not result.minutes],
        columns=charts.columns(len(results)),
        confusion_matrices=[
            (
                square_svg(charts.confusion_matrix, result, 5.2, "confusion matrix"),
                tables.confusions(result),
            )
            for result in results
        ],
        classes=tables.classes(results, data, order),
        bins=BINS,
        reliability=[
            square_svg(
                charts.reliability, result, 3.6, f"accuracy by confidence, {result.tendency}"
            )
            for result in results
        ],
        mistakes=[
            (
                result.name,
                int((~result.correct).sum()),
                cards(result.most_confident_mistakes(MAX_MISTAKES), [result], test, files),
            )
            for result in results
        ],
        missed_by_all=len(missed_by_all),
        hardest=cards(hardest, results, test, files),
        shared_params=tables.shared_params(settings),
        model_params=tables.model_params(settings, data),
        provenance=tables.provenance(results),
    )
