"""Moving averages of batch normalization, computed anew for the trained weights."""

from typing import Any

from stages.common.quiet_keras import keras
from stages.dataset.batch_loader import BatchLoader


def layers(model: keras.Model) -> list[Any]:
    """The layers of batch normalization that are trained, also those within nested models."""
    return [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]


def recompute(model: keras.Model, batches: BatchLoader) -> None:
    """Set the moving averages to the means over these batches of training images.

    The averages forget slowly: after a few hundred steps, or while a constant learning rate keeps
    changing the weights, they belong to weights that are gone, and the model fails on every image
    outside of training (Wu and Johnson 2021, arXiv 2105.07576, section 3).
    """
    normalizations = layers(model)
    momentums = [layer.momentum for layer in normalizations]
    for index in range(len(batches)):
        for layer in normalizations:
            layer.momentum = index / (index + 1)  # the mean of all batches so far
        model(batches[index][0], training=True)
    for layer, momentum in zip(normalizations, momentums, strict=True):
        layer.momentum = momentum
