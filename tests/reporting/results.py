"""Results of models that were never trained, for tests of tables, charts and the page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.common.params import Params
from stages.dataset.description import Description
from stages.dataset.splits import Split, SplitWriter
from stages.reporting import page, summary
from stages.reporting.model_results import ModelResult
from stages.sources.cifar import CLASSES

HOSTILE_CLASSES = [
    '"><script>alert(1)</script>',
    "<b>&amp;</b> | *a* _b_ `c` [d](e) # ~~f~~",
    "$x^2$ back\\slash",
    "猫科動物 naïve",
    "a name of more than forty characters, with a comma",
]


def model_result(
    name: str,
    images: int = 40,
    classes: Sequence[str] = CLASSES,
    counts: Sequence[int] | None = None,
    **changes: Any,
) -> ModelResult:
    """The results of a model on N images: random probabilities, curves of three epochs.

    The classes have equally many images, or those of `counts`.
    """
    random = np.random.default_rng(0)
    labels = np.arange(images) % len(classes)
    if counts is not None:
        labels = np.repeat(np.arange(len(classes)), counts)
    probabilities = random.dirichlet(np.ones(len(classes)), len(labels)).astype(np.float32)
    fields: dict[str, Any] = {
        "classes": list(classes),
        "image_size": (32, 32),
        "accuracy": float((probabilities.argmax(axis=1) == labels).mean()),
        "loss": 2.0,
        "parameters": 1000,
        "sha256": "0" * 64,
        "software": {"keras": "3", "numpy": "2"},
        "curves": {
            f"{split}_{quantity}": [0.5, 0.7, 0.6]
            for split in ("train", "val")
            for quantity in ("accuracy", "loss")
        },
        "minutes": [1.0, 2.0, 3.0],
        "labels": labels,
        "probabilities": probabilities,
    }
    return ModelResult(name=name, **{**fields, **changes})


def description(result: ModelResult, **changes: Any) -> Description:
    """The description of a data set with a model's test images, and as many in other splits."""
    counts = result.confusion_matrix.sum(axis=1).tolist()
    images = dict.fromkeys(["train", "validation", "test"], counts)
    fields = {"classes": result.classes, "images": images, "duplicates": 0, "skipped": []}
    return Description.model_validate({**fields, **changes})


def image_split(folder: Path, result: ModelResult, size: int = 32) -> Split:
    """A test split with a model's labels and random images of that size."""
    writer = SplitWriter(folder, size)
    shape = len(result.labels), size, size, 3
    writer.append(np.random.default_rng(0).integers(0, 256, shape, np.uint8), result.labels)
    writer.close()
    return Split(folder)


def render_page(
    folder: Path, results: Sequence[ModelResult], settings: Params, size: int = 32, **changes: Any
) -> str:
    """The page of these results; `changes` are those of the data set's description."""
    test = image_split(folder, results[0], size)
    pairs = summary.compare_pairs(results)
    return page.html(results, pairs, settings, description(results[0], **changes), test)
