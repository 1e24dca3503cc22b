"""Replaces the real network in test repositories, with the same arguments."""

from pathlib import Path

import keras


def build(
    *,
    input_shape: tuple[int, int, int],
    classes: int,
    weights: Path,
    enlarge_to: int,
    frozen: bool,
    dropout: float,
) -> keras.Model:
    assert weights.is_file()
    assert enlarge_to >= input_shape[0]
    features = keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Conv2D(32, 3, strides=4),
            keras.layers.BatchNormalization(),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    features.trainable = not frozen
    dense = keras.layers.Dense(classes, activation="softmax")
    return keras.Sequential([features, keras.layers.Dropout(dropout), dense])
