"""ResNet50 (He et al. 2015, arXiv 1512.03385) pretrained on ImageNet, all layers fine-tuned."""

from pathlib import Path
from typing import Annotated, Literal

import keras
from keras import layers
from pydantic import Field

# Mean red, green and blue of ImageNet in [0, 255]: https://keras.io/api/applications/resnet/
MEANS = (123.68, 116.779, 103.939)


def build(
    *,
    weights: Path | None,
    preprocessing: Literal["unit", "caffe"],
    input_size: Annotated[int, Field(ge=32, le=512)],
) -> keras.Model:
    """Map (N, 32, 32, 3) float32 in [0, 1] to (N, 10) class probabilities.

    Images are enlarged to `input_size`; at 32 pixels the network has 23,608,202 parameters.
    `weights` is the `.weights.h5` file of a ResNet50 without top; None gives random weights. With
    `preprocessing` "caffe" the ResNet50 gets the images that the weights were trained with, in
    [0, 255] minus ImageNet's means; with "unit" it gets them in [0, 1].
    """
    backbone = keras.applications.ResNet50(
        include_top=False, weights=weights, input_shape=(input_size, input_size, 3)
    )
    preprocess: list[layers.Layer] = []
    if input_size != 32:
        preprocess.append(layers.Resizing(input_size, input_size))
    if preprocessing == "caffe":
        preprocess.append(layers.Rescaling(255.0, offset=[-mean for mean in MEANS]))
        # The weights expect blue, green, red: flipped here once instead of in every image.
        kernel = backbone.get_layer("conv1_conv").kernel
        kernel.assign(keras.ops.flip(kernel, axis=2))
    if preprocess:
        preprocess.insert(0, keras.Input((32, 32, 3)))
    return keras.Sequential(
        [*preprocess, backbone, layers.Flatten(), layers.Dense(10, activation="softmax")],
        name="resnet50_finetune",
    )
