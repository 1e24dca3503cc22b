"""Checkpoints: after each epoch, everything the next epoch needs, to the last bit.

Not `keras.callbacks.BackupAndRestore` or Orbax: these save neither the random state of
dropout layers nor the learning curves, so training they resume differs from uninterrupted training.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.common.atomic import atomic_write, remove
from stages.training import distributed

History = list[dict[str, float]]  # of each completed epoch: its number, metrics and seconds


class Checkpoints:
    """The checkpoints of one model in `folder`; those with another fingerprint are ignored.

    `variables` are the Keras variables to save, always in the same order; `history` is saved with
    them.
    """

    def __init__(self, folder: Path, fingerprint: str, variables: Sequence[Any]) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        self.variables = variables
        self.history: History = []
        self.newest: Path | None = None

    def restore(self, process: int = 0, processes: int = 1) -> int:
        """Set variables and history to the newest usable checkpoint; returns its epoch, or 0.

        With several processes, all get the variables of process 0, which alone has a history.
        """
        values = self.read_newest() if process == 0 else None
        epochs = len(self.history)
        if processes > 1:
            epochs, values = distributed.broadcast_state(epochs, values or self.variables)
        if values is not None:
            for variable, value in zip(self.variables, values, strict=True):
                variable.assign(value)
        return epochs

    def path(self, epoch: int) -> Path:
        """The checkpoint after an epoch."""
        return self.folder / f"epoch-{epoch:06d}.npz"

    def read_newest(self) -> list[np.ndarray] | None:
        """The variables' values in the newest usable checkpoint, if any; sets the history."""
        for path in sorted(self.folder.glob("epoch-*.npz"), reverse=True):
            try:
                values = self.read(path)
            except Exception as error:  # zip, NumPy and JSON raise many types
                damaged = path.with_suffix(".damaged")
                remove(damaged)
                path.replace(damaged)
                reason = " ".join(str(error).split())
                print(f"set aside damaged checkpoint {path}: {reason:.200}", flush=True)
                continue
            if values is not None:
                self.newest = path
                return values
        return None

    def read(self, path: Path) -> list[np.ndarray] | None:
        """The variables' values in one checkpoint, None if its fingerprint is another one."""
        with np.load(path, allow_pickle=False) as saved:  # verifies a checksum of each entry
            if str(saved["fingerprint"]) != self.fingerprint:
                return None
            values = [saved[f"variable_{i}"] for i in range(len(self.variables))]
            self.history = json.loads(str(saved["history"]))
        return values

    def save(self) -> None:
        """Write a checkpoint after the last epoch of the history; keeps only the one before it."""
        values = {f"variable_{i}": variable for i, variable in enumerate(self.variables)}
        path = self.path(len(self.history))
        # Removed before the new one is written, so that there are never more than two.
        for old in self.folder.glob("*epoch-*"):
            if old != self.newest:
                remove(old)
        with atomic_write(path) as partial, partial.open("wb") as file:
            np.savez(
                file,
                allow_pickle=False,
                fingerprint=np.array(self.fingerprint),
                history=np.array(json.dumps(self.history)),
                **values,  # copied to NumPy arrays one by one
            )
            file.flush()
            os.fsync(file.fileno())
        folder = os.open(self.folder, os.O_RDONLY)
        os.fsync(folder)  # makes the new name survive a power failure
        os.close(folder)
        self.newest = path

    def clear(self) -> None:
        """Remove all checkpoints, once training is complete."""
        remove(self.folder)
