"""`params.yaml`, typed and checked.

The arguments of an architecture's `build` are checked by the train stage, which imports Keras
anyway: `stages.training.network`.
"""

import math
import re
import reprlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

from stages.common import paths
from stages.common.errors import StageError

MAX_BYTES = 100_000  # of params.yaml; the parser reads about 50,000 a second
MAX_DEPTH = 10  # of values within values; models.NAME.KEY is 3 deep
SHOWN_PROBLEMS = 5
MODEL_NAME = re.compile("[A-Za-z][A-Za-z0-9_]{0,99}")
# The names of the pipeline's own files: data/comparison.json, metrics/provenance/data.json.
RESERVED_NAMES = {paths.COMPARISON_JSON.stem, paths.DATA_PROVENANCE.stem}


def refuse_equal(value: object, validate: ValidatorFunctionWrapHandler) -> object:
    """Refuse what equals an allowed value but has another type, as True and 1.0 equal 1.

    Pydantic's `Literal` accepts these even when strict. A whole number may stand for a float.
    """
    result = validate(value)
    if type(result) is not type(value) and (type(value), type(result)) != (int, float):
        raise PydanticCustomError("type", "Input should be {allowed}", {"allowed": repr(result)})
    return result


def check_scalar(value: object) -> object:
    """Refuse what no argument of `build` can be, such as lists, null, NaN and control codes."""
    match value:
        case bool() | int():
            return value
        case float() if math.isfinite(value):
            return value
        case str() if value.isprintable():
            return value
    raise PydanticCustomError("scalar", "Input should be a number, true, false or printable text")


def check_model_name(name: str) -> str:
    """Refuse what cannot name a module, files and a DVC stage, or has no architecture file."""
    if not MODEL_NAME.fullmatch(name) or name in RESERVED_NAMES:
        raise PydanticCustomError(
            "name",
            "a model's name is up to 100 letters, digits and underscores, beginning with a letter, "
            "and not {reserved}; rename it",
            {"reserved": " or ".join(sorted(RESERVED_NAMES))},
        )
    file = paths.ARCHITECTURES / f"{name}.py"
    if not file.is_file():
        raise PydanticCustomError(
            "file", "there is no {file}; write it, or correct the name", {"file": str(file)}
        )
    return name


def check_path(path: str) -> str:
    """Refuse what cannot be the path of a DVC dependency."""
    if not path.strip() or not path.isprintable():
        raise PydanticCustomError("path", "Input should be a path of printable characters")
    return path


SameType = WrapValidator(refuse_equal)
Scalar = Annotated[bool | int | float | str, BeforeValidator(check_scalar)]
ModelName = Annotated[str, AfterValidator(check_model_name)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Epochs = Annotated[int, Field(ge=1, le=100_000)]
BatchSize = Annotated[int, Field(ge=1, le=10_000)]


class Strict(BaseModel):
    """No conversion between types, no unknown keys, immutable."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class TrainingParams(Strict):
    """The `training` section: how models are trained, unless a model's entry overrides it."""

    validation_share: float = Field(gt=0, le=1)
    precision: Literal["float32", "mixed_bfloat16"]
    fused_kernels: bool
    optimizer: Literal["adam", "sgd", "muon"]
    momentum: Fraction
    muon_lr_multiplier: float = Field(gt=0, le=1000)
    muon_momentum: Fraction
    weight_decay: float = Field(ge=0, le=1)
    bias_lr_multiplier: float = Field(gt=0, le=1000)
    lr_schedule: Literal["constant", "cosine", "linear"]
    warmup_fraction: Fraction
    label_smoothing: Fraction
    ema_decay: Fraction
    flip: Literal["none", "random", "alternating"]
    translate: int = Field(ge=0, le=31)
    frozen_batch_norm_epochs: int = Field(ge=0, le=100_000)
    tta_views: Annotated[Literal[1, 2, 6], SameType]

    @field_validator("warmup_fraction")
    @classmethod
    def check_warmup(cls, fraction: float, info: ValidationInfo) -> float:
        """Refuse a warm-up before the linear decay, which Keras has no schedule for."""
        if fraction and info.data.get("lr_schedule") == "linear":
            raise PydanticCustomError(
                "warmup", "Input should be 0 with `lr_schedule: linear`, or the schedule cosine"
            )
        return fraction


class ModelParams(TrainingParams):
    """One model, with the shared training parameters filled in.

    Additional keys are the arguments of `build` in the model's architecture file.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Scalar] = Field(init=False)

    epochs: Epochs
    batch_size: BatchSize
    weights: Literal["random", "imagenet"]
    learning_rate: float = Field(gt=0, le=10)

    @property
    def build_arguments(self) -> dict[str, bool | int | float | str]:
        """The arguments of the architecture's `build`, by name."""
        return self.__pydantic_extra__


SHARED_KEYS = ("epochs", "batch_size", *TrainingParams.model_fields)


class SampleParams(Strict):
    """The generated data set of `dataset: sample`."""

    images_per_file: int = Field(ge=20, le=10_000)
    seed: Seed


class FolderParams(Strict):
    """A user's folder of images, for `dataset: folder`."""

    path: Annotated[str, AfterValidator(check_path)]
    image_size: int = Field(ge=32, le=512)
    test_split: float = Field(gt=0, lt=1)
    seed: Seed
    skip_unreadable: bool


class Params(Strict):
    """The whole file."""

    dataset: Literal["cifar10", "cifar100", "sample", "folder"]
    sample: SampleParams
    folder: FolderParams
    seed: Seed
    validation_split: float = Field(gt=0, lt=1)
    epochs: Epochs
    batch_size: BatchSize
    training: TrainingParams
    models: dict[ModelName, ModelParams] = Field(min_length=1)
    notebook_accuracy: dict[str, Fraction]

    @field_validator("models", mode="before")
    @classmethod
    def fill_in_shared(cls, models: object, info: ValidationInfo) -> object:
        """Add the shared training parameters to every model's entry."""
        if not isinstance(models, dict):
            return models
        shared = {key: info.data[key] for key in ("epochs", "batch_size") if key in info.data}
        if "training" in info.data:
            shared |= info.data["training"].model_dump()
        return {
            name: {**shared, **entry} if isinstance(entry, dict) else entry
            for name, entry in models.items()
        }

    @field_validator("notebook_accuracy")
    @classmethod
    def check_models(cls, accuracies: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        """Refuse models that do not exist."""
        models = info.data.get("models", accuracies)  # absent if they are invalid themselves
        unknown = [name for name in accuracies if name not in models]
        if unknown:
            raise PydanticCustomError(
                "unknown_model",
                "{unknown}: unknown model; models are {known}",
                {"unknown": ", ".join(unknown), "known": ", ".join(models)},
            )
        return accuracies

    @property
    def dataset_title(self) -> str:
        """The data set's name in a sentence; a folder's own name for a user's images."""
        titles = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "sample": "a generated sample"}
        return titles.get(self.dataset) or Path(self.folder.path).name or self.folder.path

    @property
    def notebook(self) -> dict[str, float]:
        """The notebook's test accuracies by model; empty unless the images are the notebook's."""
        return self.notebook_accuracy if self.dataset == "cifar10" else {}

    def model(self, name: str) -> ModelParams:
        """The entry of one model; raises `StageError` if there is none."""
        if name not in self.models:
            known = ", ".join(self.models)
            raise StageError(
                f"{paths.PARAMS}: there is no model {reprlib.repr(name)}; models are {known}"
            )
        return self.models[name]


def describe(errors: Iterable[ErrorDetails], prefix: str = "") -> list[str]:
    """Pydantic's errors as "KEY: VALUE: PROBLEM"."""
    messages = []
    for error in errors:
        location = [str(part) for part in error["loc"]]
        key = f"{prefix}{'.'.join(part for part in location if part != '[key]')}" or "the file"
        message = f"{error['msg']:.200}"
        if error["type"] == "missing":
            message = "missing"
        elif error["type"] != "unknown_model" and "[key]" not in location:
            message = f"{reprlib.repr(error['input'])}: {message}"
        messages.append(f"{key:.150}: {message}")
    return messages


def summarize(problems: Sequence[str]) -> str:
    """The first problems in one line, and how many more there are."""
    others = len(problems) - SHOWN_PROBLEMS
    return "; ".join(problems[:SHOWN_PROBLEMS]) + (f"; and {others} more" if others > 0 else "")


def check_events(yaml: YAML, text: str) -> None:
    """Refuse YAML that a few hundred bytes can turn into gigabytes, minutes or a deep recursion.

    Values need neither aliases nor tags nor deep nesting. Raises `MarkedYAMLError` for the first
    of these, before anything is built.
    """
    depth = 0
    for event in yaml.parse(text):
        problem = None
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if isinstance(event, AliasEvent):
            problem = f"the alias *{event.anchor} is not allowed; write the values out"
        elif tag := getattr(event, "tag", None):
            tag = tag.replace("tag:yaml.org,2002:", "!!")
            problem = f"the tag {tag} is not allowed; write the value alone"
        elif depth > MAX_DEPTH:
            problem = f"nested more than {MAX_DEPTH} levels deep"
        if problem:
            raise MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


def read_yaml(content: bytes) -> object:
    """Parse YAML as DVC does; raises `StageError` if it is invalid, or not as plain as it could be.

    Duplicate keys are invalid.
    """
    yaml = YAML(typ="safe", pure=True)
    try:
        if len(content) > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES:,} bytes")
        text = content.decode()
        check_events(yaml, text)
        values = yaml.load(text)
        repr(values)  # fails for numbers of more than 4,300 digits, which could not be shown
        return values
    except MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}:" if error.problem_mark else ""
        problem = f"{line} not valid YAML: {error.problem:.200}"
    except Exception as error:  # depends on the value, such as 2026-02-30
        problem = f" not valid YAML: {error!s:.200}"
    raise StageError(f"{paths.PARAMS}:{problem}")


def load() -> Params:
    """Read and check `params.yaml`; raises `StageError` with key, value and what is allowed."""
    try:
        with paths.PARAMS.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise StageError(
            f"{paths.PARAMS}: {error.strerror}; run from the repository's root"
        ) from None
    try:
        return Params.model_validate(read_yaml(content))
    except ValidationError as error:
        # A shared parameter that is missing in a model's entry is invalid at the top as well, and
        # reported there.
        problems = describe(
            item
            for item in error.errors()
            if not (
                item["type"] == "missing"
                and item["loc"][0] == "models"
                and item["loc"][-1] in SHARED_KEYS
            )
        )
        raise StageError(f"{paths.PARAMS}: {summarize(problems)}") from None
