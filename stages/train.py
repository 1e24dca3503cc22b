"""Train one model: `python -m stages.train MODEL`.

Reads data/settings/train/MODEL.json, data/train/, data/validation/ and, for a pretrained model,
data/weights/imagenet/. Writes models/MODEL.keras and, after every epoch, metrics/curves/MODEL/.
Until training is complete, models/checkpoints/MODEL/ has a checkpoint of the last completed epoch,
from which it resumes, and the features that a frozen network has computed.
metrics/provenance/MODEL.json says where the model comes from; it is not an output of the stage, as
it differs between equal runs.
"""

import gc
import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

from stages.common import command_line, params, paths, stage_settings
from stages.common.console import counted, print_inputs, print_outputs
from stages.common.process import RunningStage
from stages.common.quiet_keras import keras
from stages.dataset import splits, training_length
from stages.dataset.batch_loader import BatchLoader
from stages.dataset.splits import Selection, Split
from stages.training import (
    batch_normalization,
    callbacks,
    distributed,
    features,
    model_file,
    network,
    optimizer,
    provenance,
    test_time_augmentation,
)
from stages.training.checkpoints import Checkpoints
from stages.training.fingerprint import fingerprint
from stages.training.fused_kernels import fused_layers
from stages.training.learning_curves import LearningCurves
from stages.training.memory_allocator import keep_freed_memory

FEW_STEPS, FEW_VALIDATION_IMAGES = 30, 20

Images = tuple[Split | Selection, Split | Selection]  # to train on, and to validate with


def print_plan(
    name: str, settings: params.Params, fitted: params.ModelParams, images: Images
) -> None:
    """Print how a model is trained, and what makes no sense with so few images."""
    training, validation = (split.count for split in images)
    steps = training_length.steps(fitted, training)
    number = [*settings.models].index(name) + 1
    print(
        f"{name}, model {number} of {len(settings.models)}: {counted(training, 'image')}, "
        f"batches of {fitted.batch_size:,}, {counted(fitted.epochs, 'epoch')}, "
        f"{counted(steps, 'step')}",
        flush=True,
    )
    if steps < FEW_STEPS:
        print(
            f"NOTICE: only {counted(steps, 'step')}: lower batch_size, or raise epochs", flush=True
        )
    if validation < FEW_VALIDATION_IMAGES:
        print(
            f"NOTICE: only {counted(validation, 'validation image')}, whose accuracy says little: "
            "add images, or raise validation_split",
            flush=True,
        )


def precompute(model: keras.Model, images: Images, folder: Path) -> tuple[keras.Model, Images]:
    """The part of a model that is trained, and its inputs: features, if the rest is frozen."""
    if not (divided := features.divide(model)):
        return model, images
    frozen, trained = divided
    training, validation = images
    return trained, (
        features.compute(frozen, training, folder / "training"),
        features.compute(frozen, validation, folder / "validation"),
    )


def verbosity() -> Literal[1, 2]:
    """Keras' progress bar in a terminal that can show it, else one line per epoch."""
    has_bar = sys.stdout.isatty() and sys.stdout.encoding.lower().startswith("utf")
    return 1 if has_bar and not os.environ.get("NO_COLOR") else 2


def train(
    name: str,
    settings: params.Params,
    process: int,
    processes: int,
    check_inputs: Callable[[], None],
) -> None:
    """Train a model in this process, one of `processes`; process 0 writes the results.

    `check_inputs` raises `StageError` if an input has changed since the stage started. It is called
    after each epoch, so that no hours are spent on a result that will be refused.
    """
    code = provenance.code_version()  # before it can change
    prepared = Split(paths.TRAIN), Split(paths.VALIDATION)
    classes = int(prepared[0].labels.max()) + 1  # all have training images
    selections = splits.select(*prepared, settings.model(name), settings.seed)
    count = selections[0].count
    model_params = training_length.fit_to(settings.model(name), count)
    for images in selections:
        distributed.check_divisible(images.count, model_params.batch_size)
    steps = training_length.steps(model_params, count)
    if process == 0:
        print_inputs(paths.TRAIN, paths.VALIDATION)
        print_plan(name, settings, model_params, selections)

    model = network.build(name, settings, prepared[0], classes)
    identity = fingerprint(name)
    check_inputs()  # else the fingerprint may be that of other code than was imported
    started, trained = time.monotonic(), model
    if model_params.flip == "none" and not model_params.translate and processes == 1:
        folder = paths.CHECKPOINTS / name / f"features-{identity[:16]}"
        with fused_layers(model) if model_params.fused_kernels else nullcontext():
            trained, selections = precompute(model, selections, folder)
    seconds_before = time.monotonic() - started
    training, validation = (
        BatchLoader(images, classes, model_params.batch_size, process, processes)
        for images in selections
    )
    training.augment(model_params.flip, model_params.translate)
    frozen_batch_normalization = callbacks.FrozenBatchNormalization(
        trained, model_params.frozen_batch_norm_epochs, model_params.epochs
    )
    optimizer.compile_for_training(trained, model_params, steps)
    checkpoints = Checkpoints(
        paths.CHECKPOINTS / name, identity, [*trained.variables, *trained.optimizer.variables]
    )
    completed = checkpoints.restore(process, processes)
    epoch_callbacks = [
        keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, _: training.shuffle(settings.seed, epoch)
        ),
        frozen_batch_normalization,
        callbacks.StopIfDiverged(name, model_params.learning_rate),
    ]
    if process == 0:
        if completed:
            print(f"resuming {name} after epoch {completed} of {model_params.epochs}", flush=True)
        curves = LearningCurves(paths.CURVES / name, checkpoints.history)
        epoch_callbacks.append(callbacks.RecordEpoch(checkpoints, curves, seconds_before))
        epoch_callbacks.append(
            keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, _: check_inputs())
        )
        epoch_callbacks.append(callbacks.PrintTimeLeft(model_params.epochs))
    with fused_layers(trained) if model_params.fused_kernels else nullcontext():
        trained.fit(
            training.as_dataset(),
            validation_data=validation.as_dataset(),
            initial_epoch=completed,
            epochs=model_params.epochs,
            callbacks=epoch_callbacks,
            shuffle=False,  # a callback does: the state of Keras' shuffling cannot be saved
            verbose=verbosity() if process == 0 else 0,
        )
    if training_length.recomputes_batch_norm(model_params, count) and processes == 1:
        training.shuffle(settings.seed, model_params.epochs)
        batch_normalization.recompute(trained, training)
    if process > 0:
        return

    keras.distribution.set_distribution(None)  # else new variables would wait for other processes
    model = test_time_augmentation.average_views(model, model_params.tta_views)
    optimizer.compile_for_saving(model, model_params, steps)
    checkpoints.variables = ()
    del trained
    gc.collect()  # frees the optimizer's variables: saving needs memory as well
    check_inputs()
    model_file.save(model, paths.MODELS / f"{name}.keras")
    provenance.record(name, checkpoints.history, code)
    print_outputs(paths.MODELS / f"{name}.keras")
    checkpoints.clear()


def main(name: str) -> None:
    main_process = distributed.is_main_process()
    stage = RunningStage(f"train@{name}") if main_process else None
    settings = stage_settings.load(f"train/{name}")
    network.check_arguments(settings)  # of all models, so that a typo shows before the first trains
    model_file.check_clock()
    keep_freed_memory()
    process, processes = distributed.initialize()
    with distributed.exit_on_peer_failure(name) if processes > 1 else nullcontext():
        train(name, settings, process, processes, stage.check_inputs if stage else lambda: None)


if __name__ == "__main__":
    command_line.run_stage(main, "stages.train", __doc__, of_model=True)
    # Exits without TensorFlow's slow shutdown, in which a signal would fail a completed run.
    os._exit(0)
