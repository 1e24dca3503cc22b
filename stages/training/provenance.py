"""Where a trained model comes from, and how long its training took.

Both differ between equal runs, so no DVC output contains them.
"""

import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from stages import ENVIRONMENT
from stages.common import paths
from stages.common.atomic import write_json
from stages.common.hashing import sha256
from stages.common.params import Params
from stages.common.quiet_keras import keras
from stages.training.checkpoints import History
from stages.training.fingerprint import PACKAGES

CODE = ["dvc.yaml", "params.yaml", "requirements.lock", "stages"]


def git(*arguments: str) -> str | None:
    """The output of a Git command; None without Git or outside a repository."""
    try:
        result = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.rstrip()


def images_origin() -> dict[str, str | None]:
    """The origin of the images, as preprocessing recorded it; None unless of these very arrays."""
    try:
        data = json.loads(paths.DATA_PROVENANCE.read_text(encoding="utf-8"))
        arrays = [x for x in data["arrays_sha256"].items() if Path(x[0]).parent != paths.TEST]
        if arrays and all(sha256(Path(file)) == checksum for file, checksum in arrays):
            return {key: data[key] for key in data if key != "arrays_sha256"}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        pass
    return {"archive": None, "archive_sha256": None}


def describe(name: str, settings: Params) -> dict[str, Any]:
    """What the model's file depends on: software, its settings, processor, data, seed and Git
    commit.

    `model_sha256` identifies the file.
    """
    changed = git("status", "--porcelain", "--", *CODE)
    model_params = settings.model(name)
    pretrained = model_params.weights == "imagenet"
    return {
        "model_sha256": sha256(paths.MODELS / f"{name}.keras"),
        **images_origin(),
        "weights_sha256": sha256(paths.IMAGENET_WEIGHTS) if pretrained else None,
        "seed": settings.seed,
        "precision": model_params.precision,
        "git_commit": git("rev-parse", "HEAD"),
        "uncommitted": None if changed is None else [line[3:] for line in changed.splitlines()],
        "python": platform.python_version(),
        **{package: version(package) for package in [*PACKAGES, keras.backend.backend()]},
        "system": platform.platform(),
        "environment": ENVIRONMENT,
        "processor_features": np.show_config(mode="dicts")["SIMD Extensions"]["found"],
        "processor_cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")  # not on macOS
        else os.cpu_count(),
    }


def is_timed(path: Path, model_sha256: str, epochs: int) -> bool:
    """Whether a file has the timing of the model with that checksum, for every epoch."""
    try:
        timing = json.loads(path.read_text(encoding="utf-8"))
        return timing["model_sha256"] == model_sha256 and len(timing["epoch_seconds"]) == epochs
    except (OSError, ValueError, KeyError, TypeError):
        return False


def record(name: str, settings: Params, history: History) -> None:
    """Write a training run's provenance and timing.

    The timing of an earlier run that gave the same model is kept: a run on a busy machine must not
    replace it.
    """
    provenance = describe(name, settings)
    write_json(paths.PROVENANCE / f"{name}.json", provenance)
    path, checksum = paths.TIMINGS / f"{name}.json", provenance["model_sha256"]
    if is_timed(path, checksum, len(history)):
        return
    seconds = [round(epoch["seconds"], 1) for epoch in history]
    timing = {"training_seconds": round(sum(seconds), 1), "epoch_seconds": seconds}
    write_json(path, {"model_sha256": checksum, **timing})
