"""Simple CNN: two convolution and pooling blocks, then a softmax classifier."""

from typing import Annotated

import keras
from keras import layers
from pydantic import Field


def build(*, dropout: Annotated[float, Field(ge=0, lt=1)]) -> keras.Model:
    """Map (N, 32, 32, 3) float32 in [0, 1] to (N, 10) class probabilities; 42,442 parameters."""
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dropout(dropout),
            layers.Dense(10, activation="softmax"),
        ],
        name="simple_cnn",
    )
