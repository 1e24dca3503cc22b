"""A model's network, built from its architecture file and its entry in params.yaml."""

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
from pydantic import ConfigDict, ValidationError, create_model

from stages.common import params, paths
from stages.common.errors import StageError
from stages.common.quiet_keras import keras
from stages.dataset.splits import Split

VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
SUPPLIED = ("weights", "images")  # arguments of `build` that are not in params.yaml as such
MAX_IMAGES = 5000  # training images given to a `build` that computes something from them


def import_build(name: str) -> Callable[..., keras.Model]:
    """The function `build` of an architecture file; raises `StageError` if there is none."""
    file = paths.ARCHITECTURES / f"{name}.py"
    try:
        module = import_module(f"stages.architectures.{name}")
    except Exception as error:  # the file may contain any mistake
        raise StageError(f"{file}: cannot be imported: {error!r:.200}") from None
    build: Callable[..., keras.Model] | None = getattr(module, "build", None)
    if not callable(build):
        raise StageError(f"{file}: has no function `build`")
    return build


def check_arguments(name: str, settings: params.Params) -> None:
    """Check a model's entry against the signature and type hints of its `build`.

    Raises `StageError` with key, value and what is allowed.
    """
    file = paths.ARCHITECTURES / f"{name}.py"
    build_network = import_build(name)
    config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())
    try:
        parameters = inspect.signature(build_network, eval_str=True).parameters
        fields: dict[str, Any] = {
            key: (
                Any if parameter.annotation is parameter.empty else parameter.annotation,
                ... if parameter.default is parameter.empty else parameter.default,
            )
            for key, parameter in parameters.items()
            if key not in SUPPLIED and parameter.kind not in VARIADIC
        }
        arguments = create_model("Arguments", __config__=config, **fields)
    except Exception as error:  # depends on the type hints
        raise StageError(
            f"{file}: the type hints of `build` cannot be used: {error!s:.200}"
        ) from None
    model_params = settings.model(name)
    try:
        arguments(**model_params.build_arguments)
    except ValidationError as error:
        problems = "; ".join(params.describe(error.errors(), f"models.{name}."))
        raise StageError(f"{paths.PARAMS}: {problems}; see `build` in {file}") from None
    if "weights" not in parameters and model_params.weights != "random":
        raise StageError(
            f"{paths.PARAMS}: models.{name}.weights: {model_params.weights!r}: only 'random' is "
            f"allowed; `build` in {file} takes no weights"
        )


def build(name: str, settings: params.Params, training: Split) -> keras.Model:
    """The untrained network; raises `StageError` if it cannot be built."""
    build_network = import_build(name)
    parameters = inspect.signature(build_network).parameters
    model_params = settings.model(name)
    arguments: dict[str, Any] = dict(model_params.build_arguments)
    if "weights" in parameters:
        imagenet = model_params.weights == "imagenet"
        arguments["weights"] = paths.IMAGENET_WEIGHTS if imagenet else None
    if "images" in parameters:
        arguments["images"] = training.read("x.npy", np.arange(min(MAX_IMAGES, training.count)))
    keras.config.set_dtype_policy(model_params.precision)
    keras.utils.set_random_seed(settings.seed)
    try:
        model = build_network(**arguments)
    except (OSError, ValueError) as error:
        raise StageError(f"{name}: the network could not be built: {error!s:.300}") from None
    if model_params.precision != "float32":
        # Probabilities need float32: https://keras.io/api/mixed_precision/
        model.layers[-1].dtype_policy = keras.DTypePolicy("float32")
    return model
