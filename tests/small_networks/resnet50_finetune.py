"""Replaces the real network in test repositories, with the same arguments."""

from pathlib import Path

import keras


def build(*, input_shape: tuple[int, int, int], classes: int, weights: Path) -> keras.Model:
    assert weights.is_file()
    return keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Flatten(),
            keras.layers.Dense(classes, activation="softmax"),
        ]
    )
