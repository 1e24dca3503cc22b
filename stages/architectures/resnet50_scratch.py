"""ResNet50 (He et al. 2015, arXiv 1512.03385) as Keras ships it, trained from random weights."""

import keras


def build() -> keras.Model:
    """Map (N, 32, 32, 3) float32 in [0, 1] to (N, 10) class probabilities.

    It has 23,608,202 parameters.
    """
    return keras.applications.ResNet50(
        weights=None, input_shape=(32, 32, 3), classes=10, name="resnet50_scratch"
    )
