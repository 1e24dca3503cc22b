"""What a training writes after each epoch: its learning curves and a checkpoint."""

import csv
import time
from pathlib import Path

import keras

from stages.support.checkpoint import Checkpoints, History
from stages.support.files import replacing


class EpochRecorder(keras.callbacks.Callback):
    """Writes the learning curves and a checkpoint after each epoch."""

    def __init__(self, checkpoints: Checkpoints, history: History, curves: Path) -> None:
        super().__init__()
        self.checkpoints, self.history, self.curves = checkpoints, history, curves

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        seconds = time.monotonic() - self.started
        numbers = {name: float(value) for name, value in (logs or {}).items()}
        self.history.append({"epoch": epoch + 1, **numbers, "seconds": seconds})
        write_curves(self.history, self.curves)
        self.checkpoints.save(self.history)


def write_curves(history: History, path: Path) -> None:
    """Write one row an epoch; the seconds stay out, since they differ between equal runs."""
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        columns = [name for name in history[0] if name != "seconds"]
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
