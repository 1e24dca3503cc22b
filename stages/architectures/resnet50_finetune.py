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
    input_shape: tuple[int, int, int],
    classes: int,
    weights: Path | None,
    preprocessing: Literal["unit", "caffe"],
    enlargement: Annotated[int, Field(ge=1, le=16)],
) -> keras.Model:
    """Map (N, *input_shape) float32 in [0, 1] to (N, classes) probabilities.

    Images are enlarged by the factor `enlargement`. For ten classes of 32 by 32 pixels, not
    enlarged, the network has 23,608,202 parameters.
    `weights` is the `.weights.h5` file of a ResNet50 without top; None gives random weights. With
    `preprocessing` "caffe" the ResNet50 gets the images that the weights were trained with, in
    [0, 255] minus ImageNet's means; with "unit" it gets them in [0, 1].
    """
    height, width, channels = input_shape
    size = enlargement * height, enlargement * width
    backbone = keras.applications.ResNet50(
        include_top=False, weights=weights, input_shape=(*size, channels)
    )
    preprocess: list[layers.Layer] = []
    if enlargement > 1:
        preprocess.append(layers.Resizing(*size))
    if preprocessing == "caffe":
        preprocess.append(layers.Rescaling(255.0, offset=[-mean for mean in MEANS]))
        # The weights expect blue, green, red: flipped here once instead of in every image.
        kernel = backbone.get_layer("conv1_conv").kernel
        kernel.assign(keras.ops.flip(kernel, axis=2))
    if preprocess:
        preprocess.insert(0, keras.Input(input_shape))
    return keras.Sequential(
        [*preprocess, backbone, layers.Flatten(), layers.Dense(classes, activation="softmax")],
        name="resnet50_finetune",
    )
