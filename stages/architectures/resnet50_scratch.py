"""ResNet50 (He et al. 2015, arXiv 1512.03385) as Keras ships it, trained from random weights."""

from typing import Literal

import keras
from keras import layers


def build(*, stem_stride: Literal[1, 2, 4]) -> keras.Model:
    """Map (N, 32, 32, 3) float32 in [0, 1] to (N, 10) class probabilities.

    A `stem_stride` of 4 gives ImageNet's network, with 23,608,202 parameters, whose stem reduces
    these images to 8 by 8 pixels. For 2 or 1 the stem is a 3 by 3 convolution of stride 1, with or
    without max-pooling after it, which gives 16 by 16 or 32 by 32 pixels, as in the networks for
    CIFAR-10 in the paper (section 4.2); the network then has 23,600,458 parameters.
    """
    if stem_stride == 4:
        return keras.applications.ResNet50(
            weights=None, input_shape=(32, 32, 3), classes=10, name="resnet50_scratch"
        )
    size = 32 * 4 // stem_stride  # the input size that ImageNet's stem reduces to the same
    resnet = keras.applications.ResNet50(weights=None, input_shape=(size, size, 3), classes=10)
    stages = keras.Model(resnet.get_layer("pool1_pool").output, resnet.output)
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(64, 3, padding="same", use_bias=False)(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.Activation("relu")(x)
    if stem_stride == 2:
        x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    return keras.Model(inputs, stages(x), name="resnet50_scratch")
