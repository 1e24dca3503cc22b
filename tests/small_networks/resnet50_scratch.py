"""Replaces the real network in test repositories, with the same arguments."""

import keras


def build(*, stem_stride: int) -> keras.Model:
    assert stem_stride == 4
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
