"""fast94: 94 % in minutes, after the network of Jordan 2024 (arXiv 2404.00498, section 3).

The first layer is not trained: it whitens patches of 2 by 2 pixels and is computed from training
images. Three blocks of two convolutions follow. Their first filters are initialized as the
identity, so that each convolution initially passes its input on.
"""

from typing import Any

import keras
import numpy as np
from keras import layers

WIDTHS = (64, 256, 256)  # channels of the three blocks
LOGIT_SCALE = 1 / 9  # keeps the initial softmax of 256 unscaled features from saturating


def whitening_filters(images: np.ndarray, patch: int = 2, epsilon: float = 5e-4) -> np.ndarray:
    """Filters (patch, patch, C, 2·patch²·C) float32 that whiten patches of images (N, H, W, C).

    They are the eigenvectors of the patches' covariance, divided by the square roots of their
    eigenvalues, and the negatives of these, because GELU suppresses negative outputs.
    """
    channels = images.shape[-1]
    windows = np.lib.stride_tricks.sliding_window_view(images, (patch, patch), axis=(1, 2))
    patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, patch * patch * channels)
    values, vectors = np.linalg.eigh(patches.T @ patches / len(patches))
    filters = (vectors / np.sqrt(values + epsilon)).reshape(patch, patch, channels, -1)
    return np.concatenate([filters, -filters], axis=-1).astype(np.float32)


def convolution(x: Any, filters: int, *, pool: bool) -> Any:
    """Convolution, optional max-pooling, batch normalization without scale, and GELU."""
    layer = layers.Conv2D(
        filters, 3, padding="same", use_bias=False, kernel_initializer=uniform_fan_in()
    )
    x = layer(x)
    kernel = np.array(layer.kernel)  # (3, 3, C, filters)
    channels = np.arange(kernel.shape[2])
    kernel[:, :, :, channels] = 0
    kernel[1, 1, channels, channels] = 1
    layer.kernel.assign(kernel)
    if pool:
        x = layers.MaxPooling2D(2)(x)
    x = layers.BatchNormalization(scale=False, momentum=0.6, epsilon=1e-12)(x)
    return layers.Activation("gelu")(x)


def uniform_fan_in() -> keras.initializers.Initializer:
    """Uniform in ± 1/√fan-in, the initialization that the published hyperparameters belong to."""
    return keras.initializers.VarianceScaling(1 / 3, mode="fan_in", distribution="uniform")


def build(*, input_shape: tuple[int, int, int], classes: int, images: np.ndarray) -> keras.Model:
    """Map (N, *input_shape) float32 in [0, 1] to (N, classes) probabilities.

    `images` are training images, from which the normalization and the whitening are computed.
    For ten classes it has 1,973,920 parameters.
    """
    mean, variance = images.mean(axis=(0, 1, 2)), images.var(axis=(0, 1, 2))
    whitened = whitening_filters((images - mean) / np.sqrt(variance))
    inputs = keras.Input(input_shape)
    x = layers.Normalization(mean=mean, variance=variance)(inputs)
    whitening = layers.Conv2D(whitened.shape[-1], 2, use_bias=False, trainable=False)
    x = layers.Activation("gelu")(whitening(x))
    whitening.kernel.assign(whitened)
    for width in WIDTHS:
        x = convolution(x, width, pool=True)
        x = convolution(x, width, pool=False)
    x = layers.GlobalMaxPooling2D()(x)
    x = layers.Dense(classes, use_bias=False, kernel_initializer=uniform_fan_in())(x)
    x = layers.Rescaling(LOGIT_SCALE)(x)
    return keras.Model(inputs, layers.Softmax()(x), name="fast94")
