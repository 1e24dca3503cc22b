"""ResNet50 (He et al. 2015, arXiv 1512.03385) used as its ImageNet weights were trained."""

from pathlib import Path
from typing import Annotated

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
    enlarge_to: Annotated[int, Field(ge=32, le=512)],
    frozen: bool,
    dropout: Annotated[float, Field(ge=0, lt=1)],
) -> keras.Model:
    """Map (N, *input_shape) float32 in [0, 1] to (N, classes) probabilities.

    `weights` is the `.weights.h5` file of a ResNet50 without top; None gives random weights. Images
    with a side below `enlarge_to` pixels are enlarged to it. If `frozen`, only the dense layer is
    trained, on the 2,048 features that global average pooling leaves of each image. For ten
    classes the network has 23,608,202 parameters.
    """
    *sides, channels = input_shape
    height, width = (max(enlarge_to, side) for side in sides)
    backbone = keras.applications.ResNet50(
        include_top=False, weights=weights, input_shape=(height, width, channels), pooling="avg"
    )
    # The weights expect blue, green, red: flipped here once instead of in every image.
    kernel = backbone.get_layer("conv1_conv").kernel
    kernel.assign(keras.ops.flip(kernel, axis=2))
    images = keras.Input(input_shape)
    # `Resizing` is in training mode by default, and so would be all layers after it in a plain call
    # of the model. Training itself overrides this.
    x = layers.Resizing(height, width)(images, training=False)
    x = layers.Rescaling(255.0, offset=[-mean for mean in MEANS])(x)
    features = keras.Model(images, backbone(x), name="features")
    features.trainable = not frozen  # as an argument it would not reach the layers within
    return keras.Sequential(
        [features, layers.Dropout(dropout), layers.Dense(classes, activation="softmax")],
        name="resnet50_imagenet",
    )
