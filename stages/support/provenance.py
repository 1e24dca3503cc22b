"""Where a trained model came from, for someone who wants to train it again."""

import os
import platform
import subprocess
from importlib.metadata import version
from typing import Any

import numpy as np

from stages.support import archive, paths, results
from stages.support.checkpoint import History
from stages.support.files import sha256, write_json
from stages.support.params import Params

CODE = ["dvc.yaml", "params.yaml", "requirements.lock", "stages"]
PACKAGES = ["dvc", "keras", "numpy"]


def git(*arguments: str) -> str | None:
    """What a Git command prints; None without Git or outside a repository."""
    try:
        result = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.rstrip()


def describe(name: str, settings: Params, backend: str) -> dict[str, Any]:
    """What went into a model's file: software, processor, data, seed and Git commit.

    The model's checksum says which file it describes.
    """
    changed = git("status", "--porcelain", "--", *CODE)
    pretrained = settings.model(name).weights == "imagenet"
    unknown = {"archive": None, "archive_sha256": None}  # the arrays came from a DVC remote
    return {
        "model_sha256": sha256(paths.MODELS / f"{name}.keras"),
        **(archive.provenance(paths.ARCHIVE) if paths.ARCHIVE.is_file() else unknown),
        "weights_sha256": sha256(paths.IMAGENET_WEIGHTS) if pretrained else None,
        "seed": settings.seed,
        "precision": settings.model(name).precision,
        "git_commit": git("rev-parse", "HEAD"),
        "uncommitted": None if changed is None else [line[3:] for line in changed.splitlines()],
        "python": platform.python_version(),
        **{package: version(package) for package in [*PACKAGES, backend]},
        "system": platform.platform(),
        "processor_features": np.show_config(mode="dicts")["SIMD Extensions"]["found"],
        "processor_cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")  # macOS has none
        else os.cpu_count(),
    }


def record(name: str, settings: Params, backend: str, history: History) -> None:
    """Write a training's origin and its seconds.

    Both differ between equal runs, so they belong into no output that DVC caches. The comparison
    reads the seconds, so those of the first training that gave this very model stay.
    """
    origin = describe(name, settings, backend)
    write_json(paths.PROVENANCE / f"{name}.json", origin)
    if results.read_minutes(name, origin["model_sha256"], len(history)):
        return
    seconds = [round(epoch["seconds"], 1) for epoch in history]
    timing = {"training_seconds": round(sum(seconds), 1), "epoch_seconds": seconds}
    write_json(paths.TIMINGS / f"{name}.json", {"model_sha256": origin["model_sha256"], **timing})
