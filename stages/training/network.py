"""A model's network, built from its architecture file and its entry in params.yaml."""

import inspect
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import ConfigDict, Field, ValidationError, create_model

from stages.common import params, paths
from stages.common.errors import StageError
from stages.common.quiet_keras import keras
from stages.dataset.splits import Split

VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
# Arguments of `build` that are not in params.yaml as such.
SUPPLIED = ("input_shape", "classes", "weights", "images")
# Pixels of the training images given to a `build` that computes something from them.
MAX_PIXELS = 5000 * 32 * 32


def architecture_file(name: str) -> Path:
    """The file with a model's `build`."""
    return paths.ARCHITECTURES / f"{name}.py"


def describe(error: BaseException, file: Path) -> str:
    """An error raised in an architecture file as "line N: TYPE: MESSAGE"."""
    path = str(file.absolute())
    frames = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in frames if frame.f_code.co_filename == path]
    if isinstance(error, SyntaxError) and error.filename == path:
        lines.append(error.lineno or 1)
    location = f"line {lines[-1]}: " if lines else ""
    parts = traceback.format_exception_only(error)
    message = next(part for part in parts if not part.startswith(" "))  # else it quotes the source
    return f"{location}{message:.300}".strip()


def import_build(name: str) -> Callable[..., keras.Model]:
    """The function `build` of an architecture file; raises `StageError` if there is none."""
    file = architecture_file(name)
    try:
        module = import_module(f"stages.architectures.{name}")
        build: Callable[..., keras.Model] | None = getattr(module, "build", None)
    except BaseException as error:  # the file may contain any mistake, or call sys.exit
        raise StageError(
            f"{file}: cannot be imported: {describe(error, file)}; correct it"
        ) from None
    if not callable(build):
        raise StageError(f"{file}: has no function `build`; write it")
    return build


def argument_problems(name: str, settings: params.Params) -> list[str]:
    """What is wrong in a model's entry by the signature and type hints of its `build`.

    Raises `StageError` if the architecture file itself is wrong.
    """
    file, build_network = architecture_file(name), import_build(name)
    model_params = settings.model(name)
    values = model_params.build_arguments
    fields: dict[str, Any] = {}
    try:
        parameters = inspect.signature(build_network, eval_str=True).parameters
        for key, parameter in parameters.items():
            if key in SUPPLIED or parameter.kind in VARIADIC:
                continue
            if key in values or parameter.default is parameter.empty:
                hint = Any if parameter.annotation is parameter.empty else parameter.annotation
                # By alias: pydantic allows no field with the name of one of its methods.
                field = Annotated[hint, params.SameType], Field(alias=key)
                fields[f"argument{len(fields)}"] = field
        config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
        arguments = create_model("Arguments", __config__=config, **fields)
    except Exception as error:  # depends on the type hints
        raise StageError(
            f"{file}: the type hints of `build` cannot be used: {error!s:.200}; correct them"
        ) from None
    for key in parameters:
        if key in params.ModelParams.model_fields and key not in SUPPLIED:
            raise StageError(
                f"{file}: `build` has an argument `{key}`, which is a training parameter; rename it"
            )
    problems = []
    try:
        arguments(**values)
    except ValidationError as error:
        problems = params.describe(error.errors(), f"models.{name}.")
    if "weights" not in parameters and model_params.weights != "random":
        problems.append(
            f"models.{name}.weights: {model_params.weights!r}: only 'random' is allowed, as "
            "`build` takes no weights"
        )
    return [f"{problem}; see `build` in {file}" for problem in problems]


def check_arguments(settings: params.Params) -> None:
    """Check every model's entry against the signature and type hints of its `build`.

    Raises `StageError` with keys, values and what is allowed.
    """
    problems = [
        problem for name in settings.models for problem in argument_problems(name, settings)
    ]
    if problems:
        raise StageError(f"{paths.PARAMS}: {params.summarize(problems)}")


def build(name: str, settings: params.Params, training: Split) -> keras.Model:
    """The untrained network; raises `StageError` if it cannot be built."""
    file, build_network = architecture_file(name), import_build(name)
    parameters = inspect.signature(build_network).parameters
    model_params = settings.model(name)
    supplied: dict[str, Any] = {"input_shape": training.image_shape, "classes": training.classes}
    imagenet = model_params.weights == "imagenet"
    supplied["weights"] = paths.IMAGENET_WEIGHTS if imagenet else None
    if "images" in parameters:
        height, width, _ = training.image_shape
        count = min(MAX_PIXELS // (height * width), training.count)
        supplied["images"] = training.read("x.npy", np.arange(count))
    arguments = {key: value for key, value in supplied.items() if key in parameters}
    keras.config.set_dtype_policy(model_params.precision)
    keras.utils.set_random_seed(settings.seed)
    try:
        model = build_network(**model_params.build_arguments, **arguments)
        shapes = [getattr(model, f"{x}_shape", None) for x in ("input", "output")]
    except BaseException as error:  # depends on the architecture
        raise StageError(
            f"{name}: the network could not be built: {describe(error, file)}; see {file}"
        ) from None
    expected = [(None, *training.image_shape), (None, training.classes)]
    if not isinstance(model, keras.Model) or shapes != expected:
        raise StageError(
            f"{file}: `build` must return a Keras model from keras.Input({training.image_shape}) "
            f"to {training.classes} classes, not {type(model).__name__} with the shapes "
            f"{shapes[0]} and {shapes[1]}; correct it"
        )
    if model_params.precision != "float32":
        # Probabilities need float32: https://keras.io/api/mixed_precision/
        model.layers[-1].dtype_policy = keras.DTypePolicy("float32")
    return model
