"""Bring the ImageNet weights of ResNet50 without its top.

Reads Keras' own file, downloaded and verified by `keras.applications`, or the file named by the
environment variable RESNET50_WEIGHTS; with `dataset: sample` it makes random ones. Writes
data/weights/imagenet/resnet50_notop.weights.h5.
"""

import os
import socket
from pathlib import Path

from stages.support import params, paths
from stages.support.errors import StageError
from stages.support.files import replacing

TIMEOUT_SECONDS = 30


def main() -> None:
    settings = params.load()
    # Keras reads and writes weights without a backend that computes, which imports faster.
    os.environ.setdefault("KERAS_BACKEND", "numpy")
    import keras

    weights: str | None = "imagenet"
    if settings.dataset == "sample":
        print(
            "NOTICE: dataset: sample, RANDOM WEIGHTS instead of ImageNet's: nothing is pretrained"
        )
        keras.utils.set_random_seed(settings.sample.seed)
        weights = None
    elif local := os.environ.get("RESNET50_WEIGHTS"):
        if not Path(local).is_file():
            raise StageError(f"RESNET50_WEIGHTS={local}: no such file; name Keras' weights file")
        print(f"reading {local}")
        weights = local
    socket.setdefaulttimeout(TIMEOUT_SECONDS)
    try:
        model = keras.applications.ResNet50(
            include_top=False, weights=weights, input_shape=(32, 32, 3)
        )
    except Exception as error:  # Keras and h5py raise many kinds, down to a bare Exception
        if weights == "imagenet":
            raise StageError(
                f"could not fetch the ImageNet weights: {error}; where there is no network, either "
                "set RESNET50_WEIGHTS=/path/to/weights.h5 or run `make demo`"
            ) from None
        raise StageError(f"{weights}: not weights of ResNet50 without top: {error}") from None
    with replacing(paths.IMAGENET_WEIGHTS) as target:
        model.save_weights(target)
    print(f"wrote {paths.IMAGENET_WEIGHTS}")


if __name__ == "__main__":
    main()
