"""What a training records after each epoch: its learning curves and a checkpoint."""

import time
from pathlib import Path

from dvclive import Live
from scmrepo.exceptions import SCMError

from stages.support.checkpoint import Checkpoints, History
from stages.support.errors import StageError
from stages.support.quietly import keras

COLUMNS = {  # Keras' names, and those under which the curves stand beside the test's metrics
    "accuracy": "train_accuracy",
    "loss": "train_loss",
    "val_accuracy": "val_accuracy",
    "val_loss": "val_loss",
}


class Curves:
    """The learning curves of a training in `folder`, as DVCLive writes them.

    `plots/metrics/COLUMN.tsv` has a row an epoch; `metrics.json` the last epoch's number and its
    validation accuracy, under the model's name. The seconds stay out, since they differ between
    equal runs. `StageError` in a Git repository without a commit.
    """

    def __init__(self, name: str, folder: Path, history: History) -> None:
        self.name = name
        try:
            # The pipeline declares the files and makes the experiments, so DVCLive need not.
            self.live = Live(str(folder), save_dvc_exp=False, dvcyaml=None)
        except SCMError as error:
            raise StageError(
                f"{folder}: DVCLive cannot tell the Git commit: {error}; commit once, then go on"
            ) from None
        for epoch in history:
            self.add(epoch)

    def add(self, epoch: dict[str, float]) -> None:
        """Add the numbers of one epoch."""
        self.live.step = int(epoch["epoch"])
        for key, column in COLUMNS.items():
            self.live.log_metric(column, epoch[key])
        # What `dvc exp show` has a column for, so one that says whose it is, and no more than one.
        self.live.summary = {self.name: {"val_accuracy": epoch["val_accuracy"]}}
        self.live.next_step()


class EpochRecorder(keras.callbacks.Callback):
    """Records the learning curves and a checkpoint after each epoch."""

    def __init__(self, checkpoints: Checkpoints, history: History, curves: Curves) -> None:
        super().__init__()
        self.checkpoints, self.history, self.curves = checkpoints, history, curves

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        seconds = time.monotonic() - self.started
        numbers = {name: float(value) for name, value in (logs or {}).items()}
        self.history.append({"epoch": epoch + 1, **numbers, "seconds": seconds})
        self.curves.add(self.history[-1])
        self.checkpoints.save(self.history)
