"""Replaces the real network in test repositories, with the same arguments."""

from pathlib import Path

import keras


def build(*, weights: Path, preprocessing: str, input_size: int) -> keras.Model:
    assert weights.is_file()
    assert (preprocessing, input_size) == ("unit", 32)
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
