"""Bring the ImageNet weights of ResNet50 without its top.

Reads Keras' own file, downloaded and verified by `keras.applications`, or the file named by the
environment variable RESNET50_WEIGHTS; with `dataset: sample` it makes random ones. Writes
data/weights/imagenet/resnet50_notop.weights.h5.
"""

import errno
import os
import shutil
from pathlib import Path

from stages.support import params, paths
from stages.support.download import download
from stages.support.errors import StageError, one_line_errors
from stages.support.files import only_one, replacing, say_reading, say_wrote

# Keras knows address and checksum itself; these are for the message and the bound.
URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"
    "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
LARGEST = 100_000_000  # bytes; the file has 94,765,736


@one_line_errors
def main() -> None:
    settings = params.load()
    only_one("fetch_weights")
    # Keras reads and writes weights without a backend that computes, which imports faster.
    os.environ.setdefault("KERAS_BACKEND", "numpy")
    from stages.support.quietly import keras, without_routine_lines

    def build(weights: str | None) -> keras.Model:
        return keras.applications.ResNet50(
            include_top=False, weights=weights, input_shape=(32, 32, 3)
        )

    if settings.dataset == "sample":
        print(
            "NOTICE: dataset: sample, RANDOM WEIGHTS instead of ImageNet's: nothing is pretrained"
        )
        with without_routine_lines():  # it seeds TensorFlow too, and so imports it
            keras.utils.set_random_seed(settings.sample.seed)
        model = build(None)
    elif local := os.environ.get("RESNET50_WEIGHTS"):
        if not Path(local).is_file():
            raise StageError(f"RESNET50_WEIGHTS={local}: no such file; name Keras' weights file")
        say_reading(local)
        try:
            model = build(local)
        except Exception as error:  # Keras and h5py raise many kinds
            raise StageError(
                f"{local}: not weights of ResNet50 without top: {error!s:.200}; name Keras' file"
            ) from None
    else:
        remedy = (
            "where there is no network, either set RESNET50_WEIGHTS=/path/to/weights.h5 or run "
            "`make demo`"
        )
        model = download(lambda: build("imagenet"), URL, LARGEST, remedy)
    with replacing(paths.IMAGENET_WEIGHTS) as target:
        # Asked before, since HDF5 crashes the process where it finds the disk full.
        if shutil.disk_usage(target.parent).free < LARGEST:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(paths.IMAGENET_WEIGHTS))
        model.save_weights(target)
    say_wrote(paths.IMAGENET_WEIGHTS)


if __name__ == "__main__":
    main()
