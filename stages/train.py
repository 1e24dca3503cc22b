"""Train one model: `python -m stages.train MODEL`.

Reads data/train/, data/validation/ and, for a pretrained model, data/weights/imagenet/. Writes
models/MODEL.keras and, after every epoch, metrics/curves/MODEL.csv; keeps a checkpoint of each
epoch in models/checkpoints/MODEL/ until it is done, and resumes from it.
"""

import csv
import os
import signal
import sys
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np

from stages.support import arrays, checkpoint, model_file, params, paths, provenance
from stages.support.checkpoint import Checkpoints, History
from stages.support.errors import StageError, one_line_errors
from stages.support.files import replacing, write_json


class ShuffledBatches(keras.utils.PyDataset):
    """Batches in an order given by (seed, epoch) alone, so that any epoch can be redone.

    x is (N, 32, 32, 3) float32 in [0, 1], y (N, 10) float32 one-hot; a batch copies their rows.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, batch_size: int, seed: int) -> None:
        super().__init__()
        self.x, self.y, self.batch_size, self.seed = x, y, batch_size, seed
        self.shuffle(0)

    def shuffle(self, epoch: int) -> None:
        """Take the order of this epoch, counted from 0."""
        self.order = np.random.default_rng([self.seed, epoch]).permutation(len(self.y))

    def __len__(self) -> int:
        return -(-len(self.y) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return self.x[rows], self.y[rows]


class EpochRecorder(keras.callbacks.Callback):
    """Shuffles before each epoch; after it writes the learning curves and a checkpoint."""

    def __init__(
        self, batches: ShuffledBatches, checkpoints: Checkpoints, history: History, curves: Path
    ) -> None:
        super().__init__()
        self.batches, self.checkpoints = batches, checkpoints
        self.history, self.curves = history, curves

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.batches.shuffle(epoch)
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


def compile_model(model: keras.Model, learning_rate: float) -> None:
    """Give a model its loss, its metric and a new optimizer."""
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
    )


def inputs_of(name: str, settings: params.Params) -> str:
    """The fingerprint of all that decides what a training gives: code, parameters, data, weights.

    The files are those that dvc.yaml names for the stage.
    """
    support = [Path(module.__file__ or "") for module in (arrays, checkpoint, model_file)]
    model_params = settings.model(name)
    weights = [paths.IMAGENET_WEIGHTS] if model_params.weights == "imagenet" else []
    splits = [folder / x for folder in (paths.TRAIN, paths.VALIDATION) for x in arrays.ROW_SHAPES]
    return checkpoint.fingerprint(
        [Path(__file__), paths.ARCHITECTURES / f"{name}.py", *support, *splits, *weights],
        (
            [version(package) for package in provenance.PACKAGES],
            keras.backend.backend(),
            settings.seed,
            settings.epochs_of(name),
            settings.batch_size,
            model_params,
        ),
    )


@one_line_errors
def main(name: str) -> None:
    settings = params.load()
    model_params = settings.model(name)
    arguments = params.build_arguments(name, model_params)
    epochs, batch_size = settings.epochs_of(name), settings.batch_size
    x, y = arrays.load(paths.TRAIN)
    validation = arrays.load(paths.VALIDATION)

    keras.utils.set_random_seed(settings.seed)
    architecture = import_module(f"stages.architectures.{name}")
    try:
        model: keras.Model = architecture.build(**arguments)
    except (OSError, ValueError) as error:
        raise StageError(f"{name}: the network could not be built: {error!s:.300}") from None
    compile_model(model, model_params.learning_rate)
    model.optimizer.build(model.trainable_variables)

    variables = [*model.variables, *model.optimizer.variables]
    checkpoints = Checkpoints(paths.CHECKPOINTS / name, inputs_of(name, settings), variables)
    history = checkpoints.restore()
    if history:
        print(f"resuming {name} after epoch {len(history)} of {epochs}", flush=True)
        write_curves(history, paths.CURVES / f"{name}.csv")

    batches = ShuffledBatches(x, y, batch_size, settings.seed)
    recorder = EpochRecorder(batches, checkpoints, history, paths.CURVES / f"{name}.csv")
    model.fit(
        batches,
        validation_data=validation,
        validation_batch_size=batch_size,
        initial_epoch=len(history),
        epochs=epochs,
        callbacks=[recorder],
        shuffle=False,  # `batches` shuffles; Keras would order them by a state nobody saves
        # A line an epoch where nobody watches: Keras' progress bar rewrites its line.
        verbose=1 if sys.stdout.isatty() else 2,
    )

    # A new optimizer has no state: without the old one's the file is a third of the size.
    compile_model(model, model_params.learning_rate)
    written = paths.MODELS / f"{name}.keras"
    model_file.save(model, written)
    seconds = [round(epoch["seconds"], 1) for epoch in history]
    timing = {"training_seconds": round(sum(seconds), 1), "epoch_seconds": seconds}
    write_json(paths.TIMINGS / f"{name}.json", timing)
    origin = provenance.describe(
        written, settings.seed, keras.config.dtype_policy().name, arguments.get("weights")
    )
    write_json(paths.PROVENANCE / f"{name}.json", origin)
    print(f"wrote {written}", flush=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # too late: the work is done
    checkpoints.clear()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise StageError("usage: python -m stages.train MODEL")
    main(sys.argv[1])
    # Killed while TensorFlow takes its time to shut down, a finished training would have failed.
    os._exit(0)
