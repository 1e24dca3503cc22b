"""`params.yaml`: whatever is wrong in it ends in one line that names it."""

import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.support import params
from stages.support.errors import StageError
from tests.conftest import ROOT, Repository

CNN = "models.simple_cnn"


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the project's params.yaml and architectures."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages/architectures").symlink_to(ROOT / "stages/architectures")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_projects_own_params_are_the_notebooks(workplace: Path) -> None:
    settings = params.load()
    assert (settings.epochs, settings.batch_size, settings.validation_split) == (15, 128, 0.1)
    assert settings.dataset == "cifar10"
    assert settings.pictures_per_batch == 10_000
    for name in settings.notebook_accuracy:
        model = settings.model(name)
        assert model.learning_rate == 0.001
        assert model.model_dump(include=set(params.Training.model_fields)) == settings.model_dump(
            include=set(params.Training.model_fields)
        )
    assert settings.model("fast94").batch_size != settings.batch_size


def test_every_key_has_a_wrong_value_below() -> None:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert {keys[0] for keys in OUT_OF_RANGE} == set(content)


def change(*keys: str, value: object) -> Callable[[dict[str, Any]], None]:
    def apply(content: dict[str, Any]) -> None:
        *parents, last = keys
        for key in parents:
            content = content[key]
        content[last] = value

    return apply


def drop(*keys: str) -> Callable[[dict[str, Any]], None]:
    def apply(content: dict[str, Any]) -> None:
        *parents, last = keys
        for key in parents:
            content = content[key]
        del content[last]

    return apply


WRONG = {
    "epochs zero": (change("epochs", value=0), "epochs: 0: "),
    "epochs text": (change("epochs", value="15"), "epochs: '15': "),
    "epochs fraction": (change("epochs", value=1.5), "epochs: 1.5: "),
    "epochs null": (change("epochs", value=None), "epochs: None: "),
    "epochs true": (change("epochs", value=True), "epochs: True: "),
    "epochs list": (change("epochs", value=[15]), "epochs: [15]: "),
    "epochs missing": (drop("epochs"), "epochs: missing"),
    "batch size": (change("batch_size", value=-1), "batch_size: -1: "),
    "split above one": (change("validation_split", value=1.5), "validation_split: 1.5: "),
    "split zero": (change("validation_split", value=0), "validation_split: 0: "),
    "split NaN": (change("validation_split", value=float("nan")), "validation_split: nan: "),
    "seed": (change("seed", value=-1), "seed: -1: "),
    "dataset": (change("dataset", value="mnist"), "dataset: 'mnist': "),
    "unknown key": (change("epoch", value=3), "epoch: 3: "),
    "sample size": (change("sample", "pictures_per_batch", value=0), "sample.pictures_per_batch"),
    "no models": (change("models", value={}), "models: {}: "),
    "models a list": (change("models", value=["simple_cnn"]), "models: ['simple_cnn']: "),
    "unknown model": (
        change("models", "vgg", value={"weights": "random", "learning_rate": 0.1}),
        "models.vgg: unknown model",
    ),
    "dropout": (change("models", "simple_cnn", "dropout", value=1.0), f"{CNN}.dropout: 1.0: "),
    "dropout missing": (drop("models", "simple_cnn", "dropout"), f"{CNN}.dropout: missing"),
    "misspelt": (
        change("models", "simple_cnn", "droput", value=0.1),
        f"{CNN}.droput: 0.1: unknown",
    ),
    "nested": (change("models", "simple_cnn", "extra", value={"a": 1}), f"{CNN}.extra"),
    "rate": (change("models", "simple_cnn", "learning_rate", value=0), f"{CNN}.learning_rate: 0: "),
    "infinite rate": (
        change("models", "simple_cnn", "learning_rate", value=float("inf")),
        f"{CNN}.learning_rate: inf: ",
    ),
    "own epochs": (change("models", "simple_cnn", "epochs", value=0), f"{CNN}.epochs: 0: "),
    "weights": (
        change("models", "simple_cnn", "weights", value="mine"),
        f"{CNN}.weights: 'mine': ",
    ),
    "weights nobody loads": (
        change("models", "simple_cnn", "weights", value="imagenet"),
        f"{CNN}.weights: 'imagenet': only 'random'",
    ),
    "an accuracy of no model": (
        change("notebook_accuracy", "linear", value=0.5),
        "notebook_accuracy.linear: unknown model; models are ",
    ),
    "dropout nobody has": (
        change("models", "resnet50_scratch", "dropout", value=0.1),
        "models.resnet50_scratch.dropout: 0.1: unknown key",
    ),
}


# Every key, with a value next to the allowed ones; `weights` and `dataset` are words.
OUT_OF_RANGE: dict[tuple[str, ...], object] = {
    ("dataset",): "cifar100",
    ("sample", "pictures_per_batch"): 10_001,
    ("sample", "seed"): 2**32,
    ("seed",): -1,
    ("epochs",): 100_001,
    ("batch_size",): 0,
    ("precision",): "float16",
    ("optimizer",): "adamw",
    ("momentum",): 1.0,
    ("weight_decay",): 1.5,
    ("bias_learning_rate",): 0.0,
    ("schedule",): "linear",
    ("warmup",): 1.0,
    ("label_smoothing",): -0.1,
    ("weight_averaging",): 1.0,
    ("flip",): "vertical",
    ("translate",): 32,
    ("frozen_batch_norm_epochs",): -1,
    ("views",): 3,
    ("validation_split",): 1.0,
    ("models", "simple_cnn", "weights"): "imagenet21k",
    ("models", "simple_cnn", "learning_rate"): 10.5,
    ("models", "simple_cnn", "dropout"): -0.1,
    ("models", "resnet50_finetune", "weights"): "",
    ("models", "resnet50_finetune", "learning_rate"): -1e-9,
    ("models", "resnet50_finetune", "preprocessing"): "torch",
    ("models", "resnet50_finetune", "input_size"): 31,
    ("models", "resnet50_scratch", "stem_stride"): 3,
    ("notebook_accuracy", "simple_cnn"): 1.0,
}
OPTIONAL = [("notebook_accuracy", "simple_cnn")]
SECTIONS = [
    ("sample",),
    ("notebook_accuracy",),
    ("models",),
    ("models", "simple_cnn"),
    ("models", "resnet50_scratch"),
]


def every_key_wrong() -> dict[str, tuple[Callable[[dict[str, Any]], None], str]]:
    cases = {}
    for keys, beyond in OUT_OF_RANGE.items():
        name = ".".join(keys)
        values = {"list": [1], "mapping": {"a": 1}, "date": date(2026, 1, 1), "beyond": beyond}
        for kind, value in values.items():
            cases[f"{name} {kind}"] = (change(*keys, value=value), name)
        cases[f"{name} null"] = (change(*keys, value=None), name)
        if keys not in OPTIONAL:
            cases[f"{name} missing"] = (drop(*keys), name)
        sibling = ".".join([*keys[:-1], "stranger"])
        cases[f"{name} stranger"] = (change(*keys[:-1], "stranger", value=[]), sibling)
    for keys in SECTIONS:
        name = ".".join(keys)
        for kind, value in {"null": None, "number": 3, "text": "a", "list": []}.items():
            cases[f"{name} {kind}"] = (change(*keys, value=value), name)
    return cases


WRONG_VALUES = WRONG | {f"each: {name}": case for name, case in every_key_wrong().items()}


@pytest.mark.parametrize(("edit", "expected"), WRONG_VALUES.values(), ids=WRONG_VALUES.keys())
def test_a_wrong_value_is_named(
    workplace: Path, edit: Callable[[dict[str, Any]], None], expected: str
) -> None:
    content = yaml.safe_load((workplace / "params.yaml").read_text())
    edit(content)
    (workplace / "params.yaml").write_text(yaml.safe_dump(content))
    assert_refused(f"params.yaml: {expected}")


def assert_refused(expected: str) -> None:
    with pytest.raises(StageError) as caught:
        params.load()
    message = str(caught.value)
    assert message.startswith("error: ")
    assert expected in message
    assert message.isprintable()
    assert len(message) < 600
    print(message)


def bomb(first: str, reference: str) -> str:
    """A few lines that grow to ten thousand million values where aliases are followed."""
    lines = [f"x0: &x0 {first}"]
    for level in range(1, 11):
        content = reference.format(", ".join([f"*x{level - 1}"] * 10))
        lines.append(f"x{level}: &x{level} {content}")
    return "\n".join(lines) + "\n"


WRONG_TEXT: dict[str, tuple[Callable[[str], str], str]] = {
    "empty": (lambda _: "", "the file: None"),
    "unclosed list": (lambda _: "epochs: [", "line 1: not valid YAML"),
    "a list": (lambda _: "- a", "the file: ['a']"),
    "a zero byte": (lambda _: "\x00", "not valid YAML"),
    "almost nothing": (lambda _: "epochs: 3", "missing"),
    "tabs": (lambda text: text.replace("  seed", "\tseed"), "line 4: not valid YAML"),
    "two documents": (lambda text: f"{text}---\na: 1\n", "not valid YAML"),
    "duplicate key": (lambda text: f"{text}epochs: 3\n", 'duplicate key "epochs"'),
    "duplicate nested key": (
        lambda text: text.replace("    dropout: 0.5", "    dropout: 0.5\n    dropout: 0.4"),
        'duplicate key "dropout"',
    ),
    "duplicate model": (lambda text: f"{text}  simple_cnn: 1\n", 'duplicate key "simple_cnn"'),
    "alias": (lambda text: f"{text}a: &a 1\nb: *a\n", "the alias *a is not allowed"),
    "alias bomb": (lambda _: bomb("[lol]", "[{}]"), "the alias *x0 is not allowed"),
    "merge bomb": (lambda _: bomb("{a: 1}", "{{<<: [{}]}}"), "the alias *x0 is not allowed"),
    "alias of itself": (lambda _: "models: &a [*a]", "the alias *a is not allowed"),
    "deep nesting": (lambda _: "epochs: " + "[" * 2_000 + "]" * 2_000, "not valid YAML"),
    "python object": (
        lambda text: text.replace("epochs: 15", "epochs: !!python/object/apply:os.getpid []"),
        "could not determine a constructor",
    ),
    "1e400": (lambda text: text.replace("epochs: 15", "epochs: 1e400"), "epochs: inf"),
    "rate 1e400": (lambda text: text.replace("rate: 0.001", "rate: 1e400"), "learning_rate: inf"),
    "rate NaN": (lambda text: text.replace("rate: 0.001", "rate: .nan"), "learning_rate: nan"),
    "5,000 digits": (lambda text: text.replace("epochs: 15", f"epochs: {'9' * 5000}"), "digits"),
    "a long text": (lambda text: text.replace("epochs: 15", f"epochs: {'x' * 10**6}"), "epochs: "),
    "a number as key": (lambda text: f"{text}1: 2\n", "Keys should be strings"),
    "a list as key": (lambda text: f"{text}? [a]\n: 1\n", "Keys should be strings"),
    "other YAML": (lambda text: f"%YAML 9.9\n---\n{text}", "incompatible YAML document"),
    "yes for true": (lambda text: text.replace("epochs: 15", "epochs: yes"), "epochs: 'yes'"),
    "escape codes": (lambda text: f'{text}"a\\e]0;b\\a": 1\n', "not permitted"),
}


@pytest.mark.parametrize(("edit", "expected"), WRONG_TEXT.values(), ids=WRONG_TEXT.keys())
def test_a_wrong_file_is_refused(
    workplace: Path, edit: Callable[[str], str], expected: str
) -> None:
    file = workplace / "params.yaml"
    file.write_text(edit(file.read_text()))
    assert_refused(expected)


def test_what_is_no_text_is_refused(workplace: Path) -> None:
    file = workplace / "params.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    assert_refused("params.yaml: not valid YAML")
    file.unlink()
    assert_refused("params.yaml: No such file or directory; run from the repository's root")
    file.mkdir()
    assert_refused("params.yaml: Is a directory")


def test_an_architecture_that_does_not_parse_is_named(workplace: Path) -> None:
    architectures = workplace / "stages/architectures"
    architectures.unlink()
    architectures.mkdir()
    (architectures / "simple_cnn.py").write_text("def build(:\n")
    with pytest.raises(StageError, match=r"simple_cnn\.py: line 1: "):
        params.load()


@pytest.mark.parametrize("stage", ["fetch", "fetch_weights", "preprocess", "train", "compare"])
def test_every_stage_checks_before_it_works(clone: Repository, stage: str) -> None:
    clone.set_params(validation_split=1.5)
    before = clone.check("git", "status", "--porcelain", "--ignored")
    arguments = ["simple_cnn"] if stage == "train" else []
    result = clone.run(sys.executable, "-m", f"stages.{stage}", *arguments)
    assert result.returncode == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert errors == ["error: params.yaml: validation_split: 1.5: Input should be less than 1"]
    assert "Traceback" not in result.stderr
    assert clone.check("git", "status", "--porcelain", "--ignored") == before


def test_dvc_watches_every_setting_of_a_training() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    settings = {"seed", *params.Training.model_fields}
    assert set(stages["train"]["do"]["params"]) == {*settings, "models.${key}"}
    assert settings < set(stages["compare"]["params"])
