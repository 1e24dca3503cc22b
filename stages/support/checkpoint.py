"""Checkpoints of a training: after each epoch, everything the next epoch needs, to the last bit.

`keras.callbacks.BackupAndRestore` keeps neither the dropout layers' random state nor the learning
curves, so a training it resumes differs from one that was never interrupted.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.support.files import remove, replacing, sha256

History = list[dict[str, float]]


def fingerprint(files: Iterable[Path], settings: object) -> str:
    """SHA-256 over the contents of `files` and over `settings`: equal means equal trainings."""
    everything = repr((settings, [sha256(path) for path in files]))
    return hashlib.sha256(everything.encode()).hexdigest()


class Checkpoints:
    """The checkpoints of one model in one folder; those of another fingerprint are not used.

    `variables` are the Keras variables to save, always in the same order.
    """

    def __init__(self, folder: Path, fingerprint: str, variables: Sequence[Any]) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        self.variables = variables
        self.newest: Path | None = None

    def read(self, path: Path) -> tuple[History, list[np.ndarray]] | None:
        """Learning curves and values of one checkpoint; None if it belongs to other inputs."""
        with np.load(path, allow_pickle=False) as saved:  # checks a checksum of every entry
            if str(saved["fingerprint"]) != self.fingerprint:
                return None
            values = [saved[f"variable_{i}"] for i in range(len(self.variables))]
            return json.loads(str(saved["history"])), values

    def restore(self) -> tuple[History, list[np.ndarray]]:
        """Learning curves and variables' values of the newest usable checkpoint, or nothing."""
        for path in sorted(self.folder.glob("epoch-*.npz"), reverse=True):
            try:
                checkpoint = self.read(path)
            except Exception as error:  # zip, NumPy and JSON raise many kinds at damaged bytes
                path.replace(path.with_suffix(".damaged"))
                print(f"set aside damaged checkpoint {path}: {error!s:.200}", flush=True)
                continue
            if checkpoint:
                self.newest = path
                return checkpoint
        return [], []

    def save(self, history: History) -> None:
        """Write a checkpoint after the last epoch of `history` and keep only the one before it."""
        values = {f"variable_{i}": np.asarray(value) for i, value in enumerate(self.variables)}
        path = self.folder / f"epoch-{len(history):06d}.npz"
        # Removed before the new one is written, so that there are never more than two on the disk.
        for old in self.folder.glob("*"):
            if old != self.newest:
                remove(old)
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez(
                file,
                allow_pickle=False,
                fingerprint=np.array(self.fingerprint),
                history=np.array(json.dumps(history)),
                **values,
            )
            file.flush()
            os.fsync(file.fileno())
        folder = os.open(self.folder, os.O_RDONLY)
        os.fsync(folder)  # or a power cut could take back the new name
        os.close(folder)
        self.newest = path

    def clear(self) -> None:
        """Remove the folder, once the training has finished."""
        remove(self.folder)
