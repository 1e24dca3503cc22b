"""Results of models that were never trained, for tests of tables, charts and the page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.common import paths
from stages.common.atomic import write_json
from stages.common.params import Params
from stages.dataset.description import Description
from stages.dataset.splits import Split, SplitWriter
from stages.reporting import model_results, page, summary
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
    matrix: Sequence[Sequence[int]] | None = None,
    **changes: Any,
) -> ModelResult:
    """The results of a model on N images: random probabilities, curves of three epochs.

    The classes have equally many images, or those of `counts`. With `matrix`, a confusion matrix of
    the first classes, the model is sure of its predictions instead.
    """
    random = np.random.default_rng(0)
    labels = np.arange(images) % len(classes)
    if counts is not None:
        labels = np.repeat(np.arange(len(classes)), counts)
    if matrix is not None:
        classes = classes[: len(matrix)]
        labels, predicted = (x.repeat(np.ravel(matrix)) for x in np.indices(np.shape(matrix)))
        probabilities = np.eye(len(classes), dtype=np.float32)[predicted]
    else:
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
    nothing: dict[str, Any] = {
        "duplicates": [],
        "contradictions": [],
        "skipped": [],
        "left_out": {},
    }
    fields = {"classes": result.classes, "images": images, **nothing}
    return Description.model_validate({**fields, **changes})


def image_split(folder: Path, result: ModelResult, size: int = 32) -> Split:
    """A test split with a model's labels and random images of that size."""
    writer = SplitWriter(folder, size)
    shape = len(result.labels), size, size, 3
    writer.append(np.random.default_rng(0).integers(0, 256, shape, np.uint8), result.labels)
    writer.close()
    return Split(folder)


def write_results(result: ModelResult) -> None:
    """Write what training and evaluation write of a model to the working folder."""
    evaluation, curves = paths.EVALUATIONS / result.name, paths.CURVES / result.name
    for folder in (evaluation, curves / "plots/metrics", paths.PROVENANCE):
        folder.mkdir(parents=True, exist_ok=True)
    fields = model_results.Evaluation.model_fields
    write_json(evaluation / "evaluation.json", {key: getattr(result, key) for key in fields})
    np.save(evaluation / "probabilities.npy", result.probabilities)
    for name, values in result.curves.items():
        rows = "".join(f"{step}\t{value}\n" for step, value in enumerate(values))
        (curves / f"plots/metrics/{name}.tsv").write_text(f"step\t{name}\n{rows}")
    seconds = [60 * minutes for minutes in np.diff(result.minutes, prepend=0)]
    record = {"model_sha256": result.sha256, "epoch_seconds": seconds, "git_commit": None}
    write_json(paths.PROVENANCE / f"{result.name}.json", record)


def render_page(
    folder: Path, results: Sequence[ModelResult], settings: Params, size: int = 32, **changes: Any
) -> str:
    """The page of these results; `changes` are those of the data set's description.

    Names of the test images are those of its classes.
    """
    test, pairs = image_split(folder, results[0], size), summary.compare_pairs(results)
    files = [f"{results[0].classes[label]}/{row}.png" for row, label in enumerate(test.labels)]
    return page.html(results, pairs, settings, description(results[0], **changes), test, files)
