"""ResNet50 (He et al. 2015, arXiv 1512.03385) pretrained on ImageNet, all layers fine-tuned."""

from pathlib import Path

import keras
from keras import layers


def build(*, weights: Path) -> keras.Model:
    """Map (N, 32, 32, 3) float32 in [0, 1] to (N, 10) class probabilities; 23,608,202 parameters.

    `weights` is the `.weights.h5` file of a ResNet50 without top.
    """
    backbone = keras.applications.ResNet50(
        include_top=False, weights=weights, input_shape=(32, 32, 3)
    )
    return keras.Sequential(
        [backbone, layers.Flatten(), layers.Dense(10, activation="softmax")],
        name="resnet50_finetune",
    )
