"""ResNet50 (He et al. 2015, arXiv 1512.03385) pretrained on ImageNet, all layers fine-tuned."""

from pathlib import Path

import keras
from keras import layers


def build(*, input_shape: tuple[int, int, int], classes: int, weights: Path | None) -> keras.Model:
    """Map (N, *input_shape) float32 in [0, 1] to (N, classes) probabilities.

    `weights` is the `.weights.h5` file of a ResNet50 without top; None gives random weights. They
    get images in [0, 1], as in the notebook, not those that they were trained with. For ten classes
    of 32 by 32 pixels the network has 23,608,202 parameters.
    """
    backbone = keras.applications.ResNet50(
        include_top=False, weights=weights, input_shape=input_shape
    )
    return keras.Sequential(
        [backbone, layers.Flatten(), layers.Dense(classes, activation="softmax")],
        name="resnet50_finetune",
    )
