"""Train one model: `python -m stages.train MODEL`.

Reads data/train/, data/validation/ and, for a pretrained model, data/weights/imagenet/. Writes
models/MODEL.keras and, after every epoch, metrics/curves/MODEL/; keeps a checkpoint of each epoch
in models/checkpoints/MODEL/ until it is done, and resumes from it.
"""

import os
import signal
import sys
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path

from stages.support import (
    arrays,
    batches,
    checkpoint,
    distribution,
    model_file,
    network,
    optimization,
    params,
    paths,
    provenance,
    recorder,
)
from stages.support.arrays import Split
from stages.support.batches import Batches
from stages.support.checkpoint import Checkpoints
from stages.support.errors import StageError, one_line_errors
from stages.support.files import only_one, say_reading, say_wrote
from stages.support.memory import keep_freed_memory
from stages.support.quietly import keras
from stages.support.recorder import Curves, EpochRecorder

PICTURES_PER_EXECUTION = 1024  # between two returns to Python, where Ctrl-C waits for one


def code(name: str) -> list[Path]:
    """The files that decide what a training gives, as dvc.yaml names them for the stage."""
    support = [
        arrays,
        batches,
        checkpoint,
        distribution,
        model_file,
        network,
        optimization,
        recorder,
    ]
    modules = [Path(module.__file__ or "") for module in support]
    return [Path(__file__), *modules, paths.ARCHITECTURES / f"{name}.py"]


def fingerprint(name: str, settings: params.Params) -> str:
    """Equal for two trainings that give the same: code, parameters, data, weights, software."""
    model_params = settings.model(name)
    weights = [paths.IMAGENET_WEIGHTS] if model_params.weights == "imagenet" else []
    backend = keras.backend.backend()
    splits = [folder / x for folder in (paths.TRAIN, paths.VALIDATION) for x in arrays.ROW_SHAPES]
    return checkpoint.fingerprint(
        [*code(name), *splits, *weights],
        (
            [(package, version(package)) for package in (*provenance.PACKAGES, backend)],
            settings.seed,
            model_params,
        ),
    )


def train(name: str, settings: params.Params, process: int, processes: int) -> None:
    """Train a model in this process, one of `processes`; number 0 writes the files."""
    model_params = settings.model(name)
    epochs, batch_size = model_params.epochs, model_params.batch_size
    folders = [paths.TRAIN, paths.VALIDATION]
    splits = [Split(folder) for folder in folders]
    for split in splits:
        distribution.check_divisible(split.count, batch_size)
    training, validation = (Batches(x, batch_size, process, processes) for x in splits)
    training.augment(model_params.flip, model_params.translate)

    model = network.new(name, settings, splits[0])
    steps = epochs * len(training)
    optimization.compile_to_train(
        model, model_params, steps, max(1, PICTURES_PER_EXECUTION // batch_size)
    )
    variables = [*model.variables, *model.optimizer.variables]
    checkpoints = Checkpoints(paths.CHECKPOINTS / name, fingerprint(name, settings), variables)
    history, values = checkpoints.restore() if process == 0 else ([], [])
    if history:
        print(f"resuming {name} after epoch {len(history)} of {epochs}", flush=True)
    finished = len(history)
    if processes > 1:
        finished, values = distribution.agree(finished, values or variables)
    for variable, value in zip(variables, values, strict=False):  # no values: from the start
        variable.assign(value)

    def shuffle(epoch: int, logs: object) -> None:
        training.shuffle(settings.seed, epoch)

    callbacks = [
        keras.callbacks.LambdaCallback(on_epoch_begin=shuffle),
        optimization.FrozenBatchNormalization(model_params.frozen_batch_norm_epochs),
    ]
    if process == 0:
        say_reading(*folders)
        curves = Curves(name, paths.CURVES / name, history)
        callbacks.append(EpochRecorder(checkpoints, history, curves))
    # A line an epoch where nobody watches: Keras' progress bar rewrites its line, in colour.
    verbose = 1 if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else 2
    model.fit(
        training.source(),
        validation_data=validation.source(),
        initial_epoch=finished,
        epochs=epochs,
        callbacks=callbacks,
        shuffle=False,  # `shuffle` does; Keras would order them by a state nobody saves
        verbose=verbose if process == 0 else 0,
    )
    if process > 0:
        return

    keras.distribution.set_distribution(None)  # it would make the others wait for a new variable
    model = network.average_views(model, model_params.views)
    optimization.compile_to_save(model, model_params, steps)
    model_file.save(model, paths.MODELS / f"{name}.keras")
    provenance.record(name, settings, keras.backend.backend(), history)
    say_wrote(paths.MODELS / f"{name}.keras")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # too late: the work is done
    checkpoints.clear()


@one_line_errors
def main(name: str) -> None:
    settings = params.load()
    settings.model(name)
    if distribution.writes():
        only_one(f"train@{name}")
    keep_freed_memory()
    process, processes = distribution.join()
    with distribution.together(name) if processes > 1 else nullcontext():
        train(name, settings, process, processes)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise StageError("usage: python -m stages.train MODEL")
    main(sys.argv[1])
    # Killed while TensorFlow takes its time to shut down, a finished training would have failed.
    os._exit(0)
