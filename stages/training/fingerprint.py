"""The fingerprint of a training run: equal if and only if everything that decides its result is."""

import hashlib
from importlib.metadata import version
from pathlib import Path

import stages
from stages.common import paths
from stages.common.hashing import sha256
from stages.common.params import Params
from stages.common.quiet_keras import keras
from stages.common.stage_settings import used_by_stages

PACKAGES = ["dvc", "keras", "numpy"]


def code(architecture: str) -> list[Path]:
    """The code that a training run depends on; dvc.yaml names the same files and folders."""
    root = Path(stages.__file__).parent
    folders = [root / "dataset", root / "training"]
    files = [root / "__init__.py", root / "train.py", root / f"architectures/{architecture}.py"]
    return [*files, *(file for folder in folders for file in sorted(folder.rglob("*.py")))]


def fingerprint(name: str, settings: Params) -> str:
    """SHA-256 over code, parameters, data, initial weights, software versions and environment."""
    model_params = settings.model(name)
    weights = [paths.IMAGENET_WEIGHTS] if model_params.weights == "imagenet" else []
    arrays = [folder / x for folder in (paths.TRAIN, paths.VALIDATION) for x in ("x.npy", "y.npy")]
    checksums = [sha256(path) for path in (*code(model_params.architecture), *arrays, *weights)]
    versions = [(package, version(package)) for package in (*PACKAGES, keras.backend.backend())]
    used = used_by_stages(settings.model_dump())[f"train/{name}"]
    everything = repr((checksums, versions, stages.ENVIRONMENT, used))
    return hashlib.sha256(everything.encode()).hexdigest()
