"""`params.yaml`: whatever is wrong in it ends in one line that names it."""

import sys
from collections.abc import Callable
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
    assert {model.learning_rate for model in settings.models.values()} == {0.001}
    assert settings.epochs_of("simple_cnn") == 15


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
    "dropout nobody has": (
        change("models", "resnet50_scratch", "dropout", value=0.1),
        "models.resnet50_scratch.dropout: 0.1: unknown key",
    ),
}


@pytest.mark.parametrize(("edit", "expected"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_value_is_named(
    workplace: Path, edit: Callable[[dict[str, Any]], None], expected: str
) -> None:
    content = yaml.safe_load((workplace / "params.yaml").read_text())
    edit(content)
    (workplace / "params.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(StageError) as caught:
        params.load()
    message = str(caught.value)
    assert f"params.yaml: {expected}" in message
    assert "\n" not in message


@pytest.mark.parametrize("content", ["", "epochs: [", "- a", "\x00", "epochs: 3"])
def test_a_wrong_file_is_refused(workplace: Path, content: str) -> None:
    (workplace / "params.yaml").write_text(content)
    with pytest.raises(StageError, match=r"^error: params.yaml: .+$"):
        params.load()


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
