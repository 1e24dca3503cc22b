"""ResNet50 (He et al. 2015, arXiv 1512.03385) as Keras ships it, trained from random weights."""

from typing import Literal

import keras
from keras import layers


def build(
    *, input_shape: tuple[int, int, int], classes: int, stem_stride: Literal[1, 2, 4]
) -> keras.Model:
    """Map (N, *input_shape) float32 in [0, 1] to (N, classes) probabilities.

    A `stem_stride` of 4 gives ImageNet's network, whose stem reduces the sides of an image to a
    quarter; for ten classes it has 23,608,202 parameters. For 2 or 1 the stem is a 3 by 3
    convolution of stride 1, with or without max-pooling after it, as in the networks for small
    images in the paper (section 4.2); the network then has 23,600,458 parameters.
    """
    if stem_stride == 4:
        return keras.applications.ResNet50(
            weights=None, input_shape=input_shape, classes=classes, name="resnet50_scratch"
        )
    height, width, channels = input_shape
    factor = 4 // stem_stride  # images enlarged by it, ImageNet's stem reduces to the same size
    resnet = keras.applications.ResNet50(
        weights=None, input_shape=(factor * height, factor * width, channels), classes=classes
    )
    stages = keras.Model(resnet.get_layer("pool1_pool").output, resnet.output)
    inputs = keras.Input(input_shape)
    x = layers.Conv2D(64, 3, padding="same", use_bias=False)(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.Activation("relu")(x)
    if stem_stride == 2:
        x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    return keras.Model(inputs, stages(x), name="resnet50_scratch")
