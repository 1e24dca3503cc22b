"""Replaces the real network in test repositories, with the same arguments."""

import keras
import numpy as np


def build(*, images: np.ndarray) -> keras.Model:
    assert images.shape == (180, 32, 32, 3)
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
