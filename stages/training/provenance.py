"""Where a trained model comes from, and how long its training took.

dvc.lock links the model to data, weights, parameters and code by their checksums. This is the rest:
it differs between equal runs, so no DVC output contains it.
"""

import json
import os
import platform
import subprocess
from contextlib import suppress
from functools import partial
from importlib.metadata import version

import numpy as np

from stages import ENVIRONMENT
from stages.common import paths
from stages.common.atomic import write_json
from stages.common.hashing import sha256
from stages.common.quiet_keras import keras
from stages.training.checkpoints import History
from stages.training.fingerprint import PACKAGES

CODE = ["dvc.yaml", "params.yaml", "requirements.lock", "stages"]


def git(*arguments: str) -> str | None:
    """The output of a Git command; None without Git or outside a repository.

    Git uses the repository of the working directory, even within a hook of another one, for which
    it has set variables such as GIT_DIR. Variables with settings remain, such as safe.directory.
    """
    run = partial(subprocess.run, capture_output=True, text=True, check=True)
    try:
        names = run(["git", "rev-parse", "--local-env-vars"]).stdout.split()
        removed = {name for name in names if not name.startswith("GIT_CONFIG_")}
        environment = {name: x for name, x in os.environ.items() if name not in removed}
        return run(["git", *arguments], env=environment).stdout.rstrip()
    except (OSError, subprocess.CalledProcessError):
        return None


def code_version() -> dict[str, str | None]:
    """The Git commit, and what of the code and parameters differs from it."""
    return {
        "git_commit": git("rev-parse", "HEAD"),
        "uncommitted": git("status", "--porcelain", "--", *CODE),  # "" if there is nothing
    }


def record(name: str, history: History, code: dict[str, str | None]) -> None:
    """Write what a model's training run depended on, and the seconds of each epoch.

    The record of an earlier run that gave the same model is kept: a run on a busy machine must not
    replace it.
    """
    path, checksum = paths.PROVENANCE / f"{name}.json", sha256(paths.MODELS / f"{name}.keras")
    with suppress(OSError, ValueError, LookupError, TypeError):  # there is none, or it is damaged
        if json.loads(path.read_text(encoding="utf-8"))["model_sha256"] == checksum:
            return
    write_json(
        path,
        {
            "model_sha256": checksum,
            "epoch_seconds": [round(epoch["seconds"], 1) for epoch in history],
            **code,
            "python": platform.python_version(),
            **{package: version(package) for package in [*PACKAGES, keras.backend.backend()]},
            "system": platform.platform(),
            "environment": ENVIRONMENT,
            "processor_features": np.show_config(mode="dicts")["SIMD Extensions"].get("found"),
            "processor_cores": len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")  # not on macOS
            else os.cpu_count(),
        },
    )
