"""`params.yaml`, typed and checked.

The arguments of an architecture's `build` are checked by the train stage, which imports Keras
anyway: `stages.training.network`.
"""

import reprlib
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent

from stages.common import paths
from stages.common.errors import StageError

Fraction = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Epochs = Annotated[int, Field(ge=1, le=100_000)]
BatchSize = Annotated[int, Field(ge=1, le=10_000)]


class Strict(BaseModel):
    """No conversion between types, no unknown keys, immutable."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class TrainingParams(Strict):
    """The `training` section: how models are trained, unless a model's entry overrides it."""

    precision: Literal["float32", "mixed_bfloat16"]
    optimizer: Literal["adam", "sgd"]
    momentum: Fraction
    weight_decay: float = Field(ge=0, le=1)
    bias_lr_multiplier: float = Field(gt=0, le=1000)
    lr_schedule: Literal["constant", "cosine"]
    warmup_fraction: Fraction
    label_smoothing: Fraction
    ema_decay: Fraction
    flip: Literal["none", "random", "alternating"]
    translate: int = Field(ge=0, le=31)
    frozen_batch_norm_epochs: int = Field(ge=0, le=100_000)
    tta_views: Literal[1, 2, 6]


class ModelParams(TrainingParams):
    """One model, with the shared training parameters filled in.

    Additional keys are the arguments of `build` in the model's architecture file.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, bool | int | float | str] = Field(init=False)

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


class Params(Strict):
    """The whole file."""

    dataset: Literal["cifar10", "sample"]
    sample: SampleParams
    seed: Seed
    validation_split: float = Field(gt=0, lt=1)
    epochs: Epochs
    batch_size: BatchSize
    training: TrainingParams
    models: dict[str, ModelParams] = Field(min_length=1)
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

    @property
    def images_per_file(self) -> int:
        """Images in each of the archive's six files; 10,000 in the official one."""
        return 10_000 if self.dataset == "cifar10" else self.sample.images_per_file

    @property
    def notebook(self) -> dict[str, float]:
        """The notebook's test accuracies by model; empty unless the images are the notebook's."""
        return self.notebook_accuracy if self.dataset == "cifar10" else {}

    def model(self, name: str) -> ModelParams:
        """The entry of one model; raises `StageError` if there is none."""
        if name not in self.models:
            known = ", ".join(self.models)
            raise StageError(f"{paths.PARAMS}: there is no model {name!r}; models are {known}")
        return self.models[name]


def describe(errors: Iterable[ErrorDetails], prefix: str = "") -> list[str]:
    """Pydantic's errors as "KEY: VALUE: PROBLEM"."""
    messages = []
    for error in errors:
        key = prefix + ".".join(map(str, error["loc"])) or "the file"
        problem = f"{reprlib.repr(error['input'])}: {error['msg']}"
        messages.append(f"{key}: {'missing' if error['type'] == 'missing' else problem}")
    return messages


def read_yaml(text: str) -> object:
    """Parse YAML as DVC does, but refuse aliases: a few hundred bytes can expand to gigabytes.

    Raises `YAMLError`, also for duplicate keys.
    """
    yaml = YAML(typ="safe", pure=True)
    for event in yaml.parse(text):
        if isinstance(event, AliasEvent):
            raise MarkedYAMLError(
                problem=f"the alias *{event.anchor} is not allowed; write the values out",
                problem_mark=event.start_mark,
            )
    return yaml.load(text)


def load() -> Params:
    """Read and check `params.yaml`; raises `StageError` with key, value and what is allowed."""
    try:
        text = paths.PARAMS.read_text(encoding="utf-8")
        params = Params.model_validate(read_yaml(text))
    except OSError as error:
        raise StageError(
            f"{paths.PARAMS}: {error.strerror}; run from the repository's root"
        ) from None
    except MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}:" if error.problem_mark else ""
        raise StageError(f"{paths.PARAMS}:{line} not valid YAML: {error.problem}") from None
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
        raise StageError(f"{paths.PARAMS}: {'; '.join(problems[:3])}") from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise StageError(f"{paths.PARAMS}: not valid YAML: {error!s:.200}") from None
    for name in params.models:
        file = paths.ARCHITECTURES / f"{name}.py"
        if not file.is_file():
            raise StageError(
                f"{paths.PARAMS}: models.{name}: there is no {file}; write it, or correct the name"
            )
    for name in params.notebook_accuracy:
        if name not in params.models:
            known = ", ".join(params.models)
            raise StageError(
                f"{paths.PARAMS}: notebook_accuracy.{name}: unknown model; models are {known}"
            )
    return params
