"""`params.yaml`, typed and checked: the one place that says what a parameter may be."""

import ast
import reprlib
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent

from stages.support import paths
from stages.support.errors import StageError

Fraction = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Strict(BaseModel):
    """Values keep their YAML type, unknown keys are refused, and nothing changes after reading."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Training(Strict):
    """How a model is trained: for all of them at the top of the file, or for one in its entry."""

    epochs: int = Field(ge=1, le=100_000)
    batch_size: int = Field(ge=1, le=10_000)
    precision: Literal["float32", "mixed_bfloat16"]
    optimizer: Literal["adam", "sgd"]
    momentum: Fraction
    weight_decay: float = Field(ge=0, le=1)
    bias_learning_rate: float = Field(gt=0, le=1000)
    schedule: Literal["constant", "cosine"]
    warmup: Fraction
    label_smoothing: Fraction
    weight_averaging: Fraction
    flip: Literal["none", "random", "alternating"]
    translate: int = Field(ge=0, le=31)
    frozen_batch_norm_epochs: int = Field(ge=0, le=100_000)
    views: Literal[1, 2, 6]


class ModelParams(Training):
    """One model. Keys beyond these are the arguments of `build` in the architecture's file."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, bool | int | float | str] = Field(init=False)

    weights: Literal["random", "imagenet"]
    learning_rate: float = Field(gt=0, le=10)
    dropout: Fraction | None = None
    stem_stride: Literal[1, 2, 4] | None = None
    preprocessing: Literal["unit", "caffe"] | None = None
    input_size: int | None = Field(default=None, ge=32, le=512)


class SampleParams(Strict):
    """The generated picture set of `dataset: sample`."""

    pictures_per_batch: int = Field(ge=20, le=10_000)
    seed: Seed


class Params(Training):
    """The whole file."""

    dataset: Literal["cifar10", "sample"]
    sample: SampleParams
    seed: Seed
    validation_split: float = Field(gt=0, lt=1)
    models: dict[str, ModelParams] = Field(min_length=1)
    notebook_accuracy: dict[str, Fraction]

    @field_validator("models", mode="before")
    @classmethod
    def complete(cls, models: object, info: ValidationInfo) -> object:
        """Give every model's entry the training settings that it has no own of."""
        if not isinstance(models, dict):
            return models
        shared = {key: info.data[key] for key in Training.model_fields if key in info.data}
        return {
            name: {**shared, **entry} if isinstance(entry, dict) else entry
            for name, entry in models.items()
        }

    @property
    def pictures_per_batch(self) -> int:
        """Pictures in each of the archive's six batches; the official ones have 10,000."""
        return 10_000 if self.dataset == "cifar10" else self.sample.pictures_per_batch

    @property
    def notebook(self) -> dict[str, float]:
        """The notebook's accuracies by model, where the pictures are the notebook's."""
        return self.notebook_accuracy if self.dataset == "cifar10" else {}

    def model(self, name: str) -> ModelParams:
        """The entry of one model; `StageError` if there is none."""
        if name not in self.models:
            known = ", ".join(self.models)
            raise StageError(f"{paths.PARAMS}: there is no model {name!r}; models are {known}")
        return self.models[name]


def build_arguments(name: str, model: ModelParams) -> dict[str, Any]:
    """The keyword arguments for `build` in the model's architecture file.

    They are checked against the function's signature, which is read and not run, so that every
    stage can check every model without importing Keras. `weights` becomes a path or None;
    `pictures` is the train stage's to give.
    """
    where = f"{paths.PARAMS}: models.{name}"
    file = paths.ARCHITECTURES / f"{name}.py"
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        files = sorted(path.stem for path in paths.ARCHITECTURES.glob("[!_]*.py"))
        raise StageError(
            f"{where}: unknown model; {file} does not exist; allowed are {', '.join(files)}"
        ) from None
    except SyntaxError as error:
        raise StageError(f"{file}: line {error.lineno}: {error.msg}") from None
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    build = next((node for node in functions if node.name == "build"), None)
    if build is None:
        raise StageError(f"{file}: has no function `build`")
    accepted = [argument.arg for argument in build.args.kwonlyargs if argument.arg != "pictures"]

    known = {"weights", "learning_rate", *Training.model_fields}
    given = model.model_dump(exclude=known, exclude_none=True)
    for key, value in given.items():
        if key not in accepted:
            raise StageError(
                f"{where}.{key}: {reprlib.repr(value)}: unknown key; {file} takes no {key!r}"
            )
    if "weights" in accepted:
        given["weights"] = paths.IMAGENET_WEIGHTS if model.weights == "imagenet" else None
    elif model.weights != "random":
        raise StageError(
            f"{where}.weights: {model.weights!r}: only 'random' is allowed; {file} loads no weights"
        )
    for key in accepted:
        if key not in given:
            raise StageError(f"{where}.{key}: missing; {file} needs it")
    return given


def read_yaml(text: str) -> object:
    """Parse YAML as DVC does, without aliases: a few hundred bytes of them can grow to gigabytes.

    Raises `YAMLError`, for a key that stands twice as well.
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
    """Read and check `params.yaml`; `StageError` naming key, value and what is allowed."""
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
        problems = [
            f"{'.'.join(map(str, item['loc'])) or 'the file'}: "
            + (
                "missing"
                if item["type"] == "missing"
                else f"{reprlib.repr(item['input'])}: {item['msg']}"
            )
            for item in error.errors()
            # A setting is missing in an entry only where it is wrong at the top, and named there.
            if not (
                item["type"] == "missing"
                and item["loc"][-1] in Training.model_fields
                and item["loc"][0] == "models"
            )
        ]
        raise StageError(f"{paths.PARAMS}: {'; '.join(problems[:3])}") from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise StageError(f"{paths.PARAMS}: not valid YAML: {error!s:.200}") from None
    for name, model in params.models.items():
        build_arguments(name, model)
    for name in params.notebook_accuracy:
        if name not in params.models:
            known = ", ".join(params.models)
            raise StageError(
                f"{paths.PARAMS}: notebook_accuracy.{name}: unknown model; models are {known}"
            )
    return params
