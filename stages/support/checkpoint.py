"""Checkpoints of a training: after each epoch, everything the next epoch needs, to the last bit.

`keras.callbacks.BackupAndRestore` keeps neither the dropout layers' random state nor the learning
curves, so a training it resumes differs from one that was never interrupted.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.support.files import remove, replacing

History = list[dict[str, float]]
KEPT = 2


def fingerprint(files: Iterable[Path], settings: object) -> str:
    """SHA-256 over the contents of `files` and over `settings`: equal means equal trainings."""
    digest = hashlib.sha256(repr(settings).encode())
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


class Checkpoints:
    """The checkpoints of one model in one folder; those of another fingerprint are not used.

    `variables` are the Keras variables to save and restore, always in the same order.
    """

    def __init__(self, folder: Path, fingerprint: str, variables: Sequence[Any]) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        self.variables = variables

    def restore(self) -> History:
        """Assign the newest usable checkpoint and give its learning curves; empty without one."""
        for path in sorted(self.folder.glob("epoch-*.npz"), reverse=True):
            try:
                with np.load(path, allow_pickle=False) as saved:
                    if str(saved["fingerprint"]) != self.fingerprint:
                        continue
                    values = [saved[f"variable_{i}"] for i in range(len(self.variables))]
                    history: History = json.loads(str(saved["history"]))
            # A damaged file fails in the zip, in an array's header or in a missing key.
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                path.rename(path.with_suffix(".damaged"))
                print(f"set aside damaged checkpoint {path}: {error}", flush=True)
                continue
            for variable, value in zip(self.variables, values, strict=True):
                variable.assign(value)
            return history
        return []

    def save(self, history: History) -> None:
        """Write a checkpoint after the last epoch of `history` and drop all but the newest two."""
        from keras import ops

        values = {
            f"variable_{i}": ops.convert_to_numpy(value) for i, value in enumerate(self.variables)
        }
        with (
            replacing(self.folder / f"epoch-{len(history):06d}.npz") as partial,
            partial.open("wb") as file,
        ):
            np.savez(
                file,
                allow_pickle=False,
                fingerprint=np.array(self.fingerprint),
                history=np.array(json.dumps(history)),
                **values,
            )
            file.flush()
            os.fsync(file.fileno())
        for path in sorted(self.folder.glob("epoch-*.npz"))[:-KEPT]:
            path.unlink()

    def clear(self) -> None:
        """Remove the folder, once the training has finished."""
        remove(self.folder)
