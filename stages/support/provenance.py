"""Where a trained model came from, for someone who wants to train it again."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from stages.support import paths
from stages.support.files import sha256

CODE = ["dvc.yaml", "params.yaml", "requirements.lock", "stages"]
PACKAGES = ["dvc", "keras", "numpy"]


def git(*arguments: str) -> str | None:
    """What a Git command prints; None without Git or outside a repository."""
    try:
        result = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.rstrip()


def describe(
    model: Path, seed: int, precision: str, backend: str, weights: Path | None
) -> dict[str, Any]:
    """What went into the model file: software, processor, data, seed and Git commit.

    The commit differs between two equal runs, so this belongs into no output that DVC caches; the
    model's checksum says which file it describes.
    """
    changed = git("status", "--porcelain", "--", *CODE)
    return {
        "model_sha256": sha256(model),
        "archive_sha256": sha256(paths.ARCHIVE) if paths.ARCHIVE.is_file() else None,
        "weights_sha256": sha256(weights) if weights else None,
        "seed": seed,
        "precision": precision,
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
