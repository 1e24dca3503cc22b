"""fast94: 94 % in minutes, after the network of Jordan 2024 (arXiv 2404.00498, section 3).

The first layer is not trained: it whitens patches of 2 by 2 pixels, as computed from training
pictures. Six convolutions follow in three blocks; each passes its input on at first, since the
first of its filters begin as the identity.
"""

from typing import Any

import keras
import numpy as np
from keras import layers

WIDTHS = (64, 256, 256)  # channels of the three blocks
LOGIT_SCALE = 1 / 9  # keeps the softmax of 256 unscaled features from being sure too early


def whitening_filters(pictures: np.ndarray, patch: int = 2, epsilon: float = 5e-4) -> np.ndarray:
    """Filters (patch, patch, C, 2·patch²·C) float32 that decorrelate patches of (N, H, W, C).

    They are the eigenvectors of the patches' covariance, divided by the square root of their
    eigenvalue, and the negatives of these, since what follows lets only positive values through.
    """
    channels = pictures.shape[-1]
    windows = np.lib.stride_tricks.sliding_window_view(pictures, (patch, patch), axis=(1, 2))
    patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, patch * patch * channels)
    values, vectors = np.linalg.eigh(patches.T @ patches / len(patches))
    filters = (vectors / np.sqrt(values + epsilon)).reshape(patch, patch, channels, -1)
    return np.concatenate([filters, -filters], axis=-1).astype(np.float32)


def convolution(x: Any, filters: int, *, pool: bool) -> Any:
    """Convolution, max-pooling on request, batch normalisation without scale, and GELU."""
    layer = layers.Conv2D(
        filters, 3, padding="same", use_bias=False, kernel_initializer=uniform_fan_in()
    )
    x = layer(x)
    kernel = np.array(layer.kernel)  # (3, 3, C, filters)
    same = np.arange(kernel.shape[2])
    kernel[:, :, :, same] = 0
    kernel[1, 1, same, same] = 1
    layer.kernel.assign(kernel)
    if pool:
        x = layers.MaxPooling2D(2)(x)
    x = layers.BatchNormalization(scale=False, momentum=0.6, epsilon=1e-12)(x)
    return layers.Activation("gelu")(x)


def uniform_fan_in() -> keras.initializers.Initializer:
    """Uniform between ± 1/√fan-in, which the published settings were found with."""
    return keras.initializers.VarianceScaling(1 / 3, mode="fan_in", distribution="uniform")


def build(*, pictures: np.ndarray) -> keras.Model:
    """Map (N, 32, 32, 3) float32 in [0, 1] to (N, 10) class probabilities; 1,973,920 parameters.

    `pictures` are training pictures of that kind, for the whitening.
    """
    mean, variance = pictures.mean(axis=(0, 1, 2)), pictures.var(axis=(0, 1, 2))
    whitened = whitening_filters((pictures - mean) / np.sqrt(variance))
    inputs = keras.Input((32, 32, 3))
    x = layers.Normalization(mean=mean, variance=variance)(inputs)
    whitening = layers.Conv2D(whitened.shape[-1], 2, use_bias=False, trainable=False)
    x = layers.Activation("gelu")(whitening(x))
    whitening.kernel.assign(whitened)
    for width in WIDTHS:
        x = convolution(x, width, pool=True)
        x = convolution(x, width, pool=False)
    x = layers.GlobalMaxPooling2D()(x)
    x = layers.Dense(10, use_bias=False, kernel_initializer=uniform_fan_in())(x)
    x = layers.Rescaling(LOGIT_SCALE)(x)
    return keras.Model(inputs, layers.Softmax()(x), name="fast94")
