"""ResNet50 (He et al. 2015, arXiv 1512.03385) pretrained on ImageNet, all layers fine-tuned."""

from pathlib import Path

import keras
from keras import layers

# Of ImageNet's red, green and blue in [0, 255]: https://keras.io/api/applications/resnet/
MEANS = (123.68, 116.779, 103.939)


def build(*, weights: Path, preprocessing: str, input_size: int) -> keras.Model:
    """Map (N, 32, 32, 3) float32 in [0, 1] to (N, 10) class probabilities.

    It has 23,608,202 parameters at an `input_size` of 32, to which the pictures are enlarged.
    `weights` is the `.weights.h5` file of a ResNet50 without top. With `preprocessing` "caffe" it
    sees pictures as those weights expect them, [0, 255] less ImageNet's means, instead of [0, 1].
    """
    backbone = keras.applications.ResNet50(
        include_top=False, weights=weights, input_shape=(input_size, input_size, 3)
    )
    before: list[layers.Layer] = []
    if input_size != 32:
        before.append(layers.Resizing(input_size, input_size))
    if preprocessing == "caffe":
        before.append(layers.Rescaling(255.0, offset=[-mean for mean in MEANS]))
        # The weights want blue, green, red: turned round here instead of in every picture.
        kernel = backbone.get_layer("conv1_conv").kernel
        kernel.assign(keras.ops.flip(kernel, axis=2))
    if before:
        before.insert(0, keras.Input((32, 32, 3)))
    return keras.Sequential(
        [*before, backbone, layers.Flatten(), layers.Dense(10, activation="softmax")],
        name="resnet50_finetune",
    )
