"""Results of models that were never trained, for tests of tables, charts and the page."""

from typing import Any

import numpy as np

from stages.reporting.model_results import ModelResult
from stages.sources.archive import CLASSES


def model_result(name: str, images: int = 40, **changes: Any) -> ModelResult:
    """The results of a model on N images: random probabilities, curves of three epochs."""
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(len(CLASSES)), images).astype(np.float32)
    labels = np.arange(images) % len(CLASSES)
    fields: dict[str, Any] = {
        "classes": CLASSES,
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
