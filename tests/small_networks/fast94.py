"""Replaces the real network in test repositories, with the same arguments."""

import keras
import numpy as np


def build(*, input_shape: tuple[int, int, int], classes: int, images: np.ndarray) -> keras.Model:
    assert images.shape == (180, 32, 32, 3)
    return keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Flatten(),
            keras.layers.Dense(classes, activation="softmax"),
        ]
    )
