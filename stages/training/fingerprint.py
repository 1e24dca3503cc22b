"""The fingerprint of a training run: equal if and only if everything that decides its result is."""

import hashlib
from importlib.metadata import version

import stages
from stages.common import process
from stages.common.hashing import sha256
from stages.common.quiet_keras import keras

PACKAGES = ["dvc", "keras", "numpy"]


def fingerprint(name: str) -> str:
    """SHA-256 over the inputs that dvc.yaml names for a model, software versions and environment.

    The inputs are code, parameters, data and initial weights.
    """
    files = sorted(process.stamps(process.inputs(f"train@{name}")))
    checksums = [(str(file), sha256(file)) for file in files]
    versions = [(package, version(package)) for package in (*PACKAGES, keras.backend.backend())]
    everything = repr((checksums, versions, stages.ENVIRONMENT))
    return hashlib.sha256(everything.encode()).hexdigest()
