"""The learning curves of a training run, as DVCLive writes them."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from dvclive import Live
from scmrepo.exceptions import SCMError

from stages.common.errors import StageError

COLUMNS = {  # by Keras' names of the metrics
    "accuracy": "train_accuracy",
    "loss": "train_loss",
    "val_accuracy": "val_accuracy",
    "val_loss": "val_loss",
}


class LearningCurves:
    """Writes learning curves to `folder`, starting with the completed epochs in `history`.

    `plots/metrics/COLUMN.tsv` has one row per epoch, `metrics.json` the last epoch and its
    validation accuracy; no seconds, as they differ between equal runs. Raises `StageError` in a
    Git repository without a commit.
    """

    def __init__(self, folder: Path, history: Iterable[Mapping[str, float]]) -> None:
        try:
            # DVC itself records experiments and dvc.yaml.
            self.live = Live(str(folder), save_dvc_exp=False, dvcyaml=None)
        except SCMError as error:
            raise StageError(
                f"{folder}: DVCLive cannot read the Git commit: {error}; commit once, then run it "
                "again"
            ) from None
        for epoch in history:
            self.append(epoch)

    def append(self, epoch: Mapping[str, float]) -> None:
        """Add one epoch."""
        self.live.step = int(epoch["epoch"])
        for key, column in COLUMNS.items():
            self.live.log_metric(column, epoch[key])
        # For `dvc metrics show` and `dvc exp show`; DVCLive adds the step.
        self.live.summary = {"val_accuracy": epoch["val_accuracy"]}
        self.live.next_step()
