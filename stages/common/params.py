"""`params.yaml`, typed and checked.

The arguments of an architecture's `build` are checked by the train stage, which imports Keras
anyway: `stages.training.network`.
"""

import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError
from ruamel.yaml import YAML

from stages.common import paths
from stages.common.errors import StageError

SHOWN_PROBLEMS = 5
NAME = re.compile("[A-Za-z][A-Za-z0-9_]{0,99}")


def check_name(name: str) -> str:
    """Refuse what cannot name a module, files and a DVC stage."""
    if not NAME.fullmatch(name):
        raise PydanticCustomError(
            "name",
            "a name is up to 100 letters, digits and underscores, beginning with a letter; "
            "rename it",
        )
    return name


def check_architecture(name: str) -> str:
    """Refuse an architecture without a file."""
    file = paths.ARCHITECTURES / f"{name}.py"
    if not file.is_file():
        raise PydanticCustomError(
            "file",
            "there is no {file}; write it and `git add` it, or correct the name",
            {"file": str(file)},
        )
    return name


Name = Annotated[str, AfterValidator(check_name)]
Architecture = Annotated[Name, AfterValidator(check_architecture)]
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
    min_validation_images: int = Field(ge=1)
    min_batches: int = Field(ge=0, le=10_000)
    min_batch_size: BatchSize
    min_steps: int = Field(ge=1, le=1_000_000)
    precision: Literal["float32", "mixed_bfloat16"]
    fused_kernels: bool
    optimizer: Literal["adam", "sgd", "muon"]
    momentum: Fraction
    muon_lr_multiplier: float = Field(gt=0, le=1000)
    muon_momentum: Fraction
    muon_bias_lr_multiplier: float = Field(gt=0, le=1000)
    weight_decay: float = Field(ge=0, le=1)
    lr_schedule: Literal["constant", "cosine", "linear"]
    warmup_fraction: Fraction
    label_smoothing: Fraction
    ema_decay: Fraction
    flip: Literal["none", "random", "alternating"]
    translate: int = Field(ge=0, le=31)
    frozen_batch_norm_epochs: int = Field(ge=0, le=100_000)
    recompute_batch_norm_below: int = Field(ge=0, le=1_000_000)
    tta_views: Literal[1, 2, 6]

    @field_validator("warmup_fraction")
    @classmethod
    def check_warmup(cls, fraction: float, info: ValidationInfo) -> float:
        """Refuse a warm-up before the linear decay, which Keras has no schedule for."""
        if fraction and info.data.get("lr_schedule") == "linear":
            raise PydanticCustomError(
                "warmup", "Input should be 0 with `lr_schedule: linear`; use cosine for a warm-up"
            )
        return fraction


class ModelParams(TrainingParams):
    """One model, with the shared training parameters filled in.

    Additional keys are the arguments of `build` in the model's architecture file.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, bool | int | float | str] = Field(init=False)

    architecture: Architecture
    epochs: Epochs
    batch_size: BatchSize
    weights: Literal["random", "imagenet"]
    learning_rate: float = Field(gt=0, le=10)

    @property
    def build_arguments(self) -> dict[str, bool | int | float | str]:
        """The arguments of the architecture's `build`, by name."""
        return self.__pydantic_extra__


class SampleParams(Strict):
    """The generated data set of `dataset: sample`."""

    images_per_file: int = Field(ge=20, le=10_000)
    seed: Seed


class FolderParams(Strict):
    """A user's folder of images, for `dataset: folder`."""

    path: str = Field(min_length=1)
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
    models: dict[Name, ModelParams] = Field(min_length=1)
    notebook_accuracy: dict[Name, Fraction]

    @field_validator("models", mode="before")
    @classmethod
    def fill_in_shared(cls, models: object, info: ValidationInfo) -> object:
        """Add the shared parameters to every model's entry."""
        if not isinstance(models, dict):
            return models
        training = info.data.get("training")  # absent if it is invalid itself
        shared = shared_settings(info.data, training.model_dump() if training else {})
        return {
            name: {**shared, **entry} if isinstance(entry, dict) else entry
            for name, entry in models.items()
        }

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


def shared_settings(values: Mapping[str, Any], training: Mapping[str, Any]) -> dict[str, Any]:
    """What applies to every model unless its entry overrides it, by the keys of an entry."""
    return {key: values[key] for key in ("epochs", "batch_size") if key in values} | {**training}


def problems(errors: Iterable[ErrorDetails], prefix: str = "") -> list[str]:
    """Pydantic's errors as "KEY: VALUE: PROBLEM"."""
    messages = []
    for error in errors:
        location = [str(part) for part in error["loc"]]
        key = f"{prefix}{'.'.join(part for part in location if part != '[key]')}" or "the file"
        message = f"{error['msg']:.200}"
        if error["type"] == "missing":
            message = "missing"
        elif "[key]" not in location:
            message = f"{reprlib.repr(error['input'])}: {message}"
        messages.append(f"{key:.150}: {message}")
    return messages


def summarize(messages: Sequence[str]) -> str:
    """The first problems in one line, and how many more there are."""
    others = len(messages) - SHOWN_PROBLEMS
    return "; ".join(messages[:SHOWN_PROBLEMS]) + (f"; and {others} more" if others > 0 else "")


def read_yaml(file: Path = paths.PARAMS) -> Any:
    """Parse params.yaml, or dvc.yaml, as DVC does, which has parsed it before; raises `StageError`.

    Duplicate keys are invalid.
    """
    try:
        return YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise StageError(f"{file}: {error.strerror}; run from the repository's root") from None
    except Exception as error:  # depends on the value, such as 2026-02-30
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        reason = getattr(error, "problem", None) or error
        raise StageError(f"{file}: {line}not valid YAML: {reason!s:.200}") from None


def load() -> Params:
    """Read and check `params.yaml`; raises `StageError` with key, value and what is allowed."""
    try:
        return Params.model_validate(read_yaml())
    except ValidationError as error:
        # What is wrong with a shared parameter is wrong in every model's entry as well.
        shared = [item for item in error.errors() if item["loc"][:1] != ("models",)]
        messages = problems(shared or error.errors())
        raise StageError(f"{paths.PARAMS}: {summarize(messages)}") from None
