"""A model's network, built from its architecture file and its entry in params.yaml."""

import inspect
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ConfigDict, Field, ValidationError, create_model

from stages.common import params, paths
from stages.common.errors import StageError
from stages.common.quiet_keras import keras
from stages.dataset.splits import Split, scale

# Arguments of `build` that are not in params.yaml as such.
SUPPLIED = ("input_shape", "classes", "weights", "images")
# Pixels of the training images given to a `build` that computes something from them.
MAX_PIXELS = 5000 * 32 * 32


def located(error: BaseException, file: Path) -> str:
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


@contextmanager
def running(name: str, file: Path) -> Iterator[None]:
    """Turn whatever an architecture file raises into a `StageError`."""
    try:
        yield
    except BaseException as error:
        raise StageError(
            f"{name}: the network could not be built: {located(error, file)}; see {file}"
        ) from None


def import_build(architecture: str) -> tuple[Path, Callable[..., keras.Model]]:
    """An architecture's file and its function `build`; raises `StageError` if there is none."""
    file = paths.ARCHITECTURES / f"{architecture}.py"
    try:
        module = import_module(f"stages.architectures.{architecture}")
        build: Callable[..., keras.Model] | None = getattr(module, "build", None)
    except BaseException as error:  # the file may contain any mistake, or call sys.exit
        raise StageError(
            f"{file}: cannot be imported: {located(error, file)}; correct it"
        ) from None
    if not callable(build):
        raise StageError(f"{file}: has no function `build`; write it")
    return file, build


def argument_problems(name: str, settings: params.Params) -> list[str]:
    """What is wrong in a model's entry by the signature and type hints of its `build`."""
    model_params = settings.model(name)
    file, build_network = import_build(model_params.architecture)
    fields: dict[str, Any] = {}
    problems = []
    try:
        parameters = inspect.signature(build_network, eval_str=True).parameters
        for key, parameter in parameters.items():
            if key not in SUPPLIED and parameter.kind is not parameter.VAR_KEYWORD:
                hint = Any if parameter.annotation is parameter.empty else parameter.annotation
                default = ... if parameter.default is parameter.empty else parameter.default
                # By alias: pydantic allows no field with the name of one of its methods.
                fields[f"argument{len(fields)}"] = hint, Field(default, alias=key)
        config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
        create_model("Arguments", __config__=config, **fields)(**model_params.build_arguments)
    except ValidationError as error:
        problems = params.problems(error.errors(), f"models.{name}.")
    except Exception as error:  # depends on the type hints
        raise StageError(
            f"{file}: the type hints of `build` are unusable: {located(error, file)}; correct them"
        ) from None
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


def last_layer(model: keras.Model) -> keras.Layer:
    """The layer that computes a model's output, also where models are nested."""
    layer = model.layers[-1]
    return last_layer(layer) if isinstance(layer, keras.Model) else layer


def is_distribution(probabilities: np.ndarray) -> bool:
    """Whether each row of (N, K) is float32 and a distribution, to within rounding errors."""
    sums = probabilities.sum(axis=1, dtype=float)
    nonnegative = bool((probabilities >= 0).all())
    return probabilities.dtype == np.float32 and nonnegative and np.allclose(sums, 1, atol=1e-3)


def build(name: str, settings: params.Params, training: Split, classes: int) -> keras.Model:
    """The untrained network for these images; raises `StageError` if it cannot be built."""
    model_params = settings.model(name)
    file, build_network = import_build(model_params.architecture)
    parameters = inspect.signature(build_network).parameters
    supplied: dict[str, Any] = {
        "input_shape": training.image_shape,
        "classes": classes,
        "weights": paths.IMAGENET_WEIGHTS if model_params.weights == "imagenet" else None,
    }
    if "images" in parameters:
        height, width, _ = training.image_shape
        count = min(MAX_PIXELS // (height * width), training.count)
        supplied["images"] = scale(training.images(np.arange(count)))
    arguments = {key: value for key, value in supplied.items() if key in parameters}
    keras.config.set_dtype_policy(model_params.precision)
    keras.utils.set_random_seed(settings.seed)
    with running(name, file):
        model = build_network(**model_params.build_arguments, **arguments)
        shapes = [getattr(model, f"{x}_shape", None) for x in ("input", "output")]
    expected = [(None, *training.image_shape), (None, classes)]
    if not isinstance(model, keras.Model) or shapes != expected:
        raise StageError(
            f"{file}: `build` must return a Keras model from keras.Input({training.image_shape}) "
            f"to {classes} classes, not {type(model).__name__} with the shapes "
            f"{shapes[0]} and {shapes[1]}; correct it"
        )
    if model_params.precision != "float32":
        # Probabilities need float32: https://keras.io/api/mixed_precision/
        last_layer(model).dtype_policy = keras.DTypePolicy("float32")
    with running(name, file):
        outputs = model(scale(training.images(np.arange(1))), training=False)
        probabilities = keras.ops.convert_to_numpy(outputs)
    if not is_distribution(probabilities):
        raise StageError(
            f"{file}: `build` must return a model of probabilities, float32 numbers from 0 to 1 "
            f"with the sum 1, not {probabilities.dtype} numbers from {probabilities.min():.3g} to "
            f"{probabilities.max():.3g} with the sum {probabilities.sum():.3g}; let its last layer "
            "be a softmax"
        )
    return model
