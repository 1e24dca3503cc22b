"""A model's network: built to be trained, and as its file has it."""

import inspect
from importlib import import_module
from typing import Any

import numpy as np

from stages.support import params
from stages.support.arrays import Split
from stages.support.errors import StageError
from stages.support.quietly import keras

PICTURES = 5000  # the first ones of the training, for a network that computes something from them


def new(name: str, settings: params.Params, training: Split) -> keras.Model:
    """The untrained network; `StageError` where it can't be built."""
    model_params = settings.model(name)
    architecture = import_module(f"stages.architectures.{name}")
    arguments = params.build_arguments(name, model_params)
    if "pictures" in inspect.signature(architecture.build).parameters:
        arguments["pictures"] = training.read("x.npy", np.arange(min(PICTURES, training.count)))
    keras.config.set_dtype_policy(model_params.precision)
    keras.utils.set_random_seed(settings.seed)
    try:
        model: keras.Model = architecture.build(**arguments)
    except (OSError, ValueError) as error:
        raise StageError(f"{name}: the network could not be built: {error!s:.300}") from None
    if model_params.precision != "float32":
        # Probabilities need float32's digits: https://keras.io/api/mixed_precision/
        model.layers[-1].dtype_policy = keras.DTypePolicy("float32")
    return model


def average_views(model: keras.Model, views: int) -> keras.Model:
    """The model as the mean of its probabilities over so many views of each picture.

    2: the picture and its mirror image. 6: these with a half of the weight, and with a quarter each
    both again one pixel to the upper left and to the lower right, as in Jordan 2024 (arXiv
    2404.00498, section 3.5). 1 is the model itself.
    """
    if views == 1:
        return model
    mean = keras.layers.Average(dtype="float32")
    network = keras.Model(
        model.inputs[0], model.outputs[0], name=model.name
    )  # without the optimizer

    def both(x: Any) -> list[Any]:
        return [network(x), network(keras.ops.flip(x, axis=2))]

    pictures = keras.Input(model.input_shape[1:])
    probabilities = mean(both(pictures))
    if views == 6:
        _, height, width, _ = model.input_shape
        framed = keras.ops.pad(pictures, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="reflect")
        moved = [*both(framed[:, :height, :width]), *both(framed[:, 2:, 2:])]
        probabilities = mean([probabilities, mean(moved)])
    return keras.Model(pictures, probabilities, name=model.name)
