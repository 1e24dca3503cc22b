"""`params.yaml`: whatever is invalid in it ends in one line that names the key."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from stages.common import params
from stages.common.errors import StageError
from tests.params_edits import INVALID_TYPES, edit_params, invalid_edits
from tests.repository import ROOT, Repository

CNN = "models.simple_cnn"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the project's params.yaml and architectures."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages/architectures").symlink_to(ROOT / "stages/architectures")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_refused(expected: str) -> None:
    """Loading params.yaml ends in one line with the expected text."""
    with pytest.raises(StageError) as caught:
        params.load()
    message = str(caught.value)
    assert message.startswith("error: ")
    assert expected in message
    assert message.isprintable()
    assert len(message) < 600
    print(message)


def test_project_trains_the_notebooks_models_as_the_notebook_did(folder: Path) -> None:
    settings = params.load()
    assert (settings.epochs, settings.batch_size, settings.validation_split) == (15, 128, 0.1)
    assert settings.dataset == "cifar10"
    shared = {"epochs": 15, "batch_size": 128, **settings.training.model_dump()}
    assert set(shared) == set(params.SHARED_KEYS)
    for name in settings.notebook_accuracy:
        model = settings.model(name)
        assert model.learning_rate == 0.001
        assert model.model_dump(include=set(params.SHARED_KEYS)) == shared
    assert settings.model("fast94").batch_size != settings.batch_size


# Every required key, with a value next to the allowed ones. The arguments of `build` are tested in
# training/test_network.py.
OUT_OF_RANGE = {
    "dataset": "imagenet",
    "folder.path": "' '",
    "folder.image_size": "31",
    "folder.test_split": "0.0",
    "folder.seed": "-1",
    "folder.skip_unreadable": "1",
    "sample.images_per_file": "10001",
    "sample.seed": str(2**32),
    "seed": "-1",
    "validation_split": "1.0",
    "epochs": "100001",
    "batch_size": "0",
    "training.validation_share": "0.0",
    "training.precision": "float16",
    "training.fused_kernels": "1",
    "training.optimizer": "adamw",
    "training.momentum": "1.0",
    "training.muon_lr_multiplier": "0.0",
    "training.muon_momentum": "1.0",
    "training.weight_decay": "1.5",
    "training.bias_lr_multiplier": "0.0",
    "training.lr_schedule": "step",
    "training.warmup_fraction": "1.0",
    "training.label_smoothing": "-0.1",
    "training.ema_decay": "1.0",
    "training.flip": "vertical",
    "training.translate": "32",
    "training.frozen_batch_norm_epochs": "-1",
    "training.tta_views": "3",
    f"{CNN}.weights": "imagenet21k",
    f"{CNN}.learning_rate": "10.5",
    "models.resnet50_finetune.weights": "''",
    "models.resnet50_finetune.learning_rate": "-0.000000001",
}
SECTIONS = [
    "folder",
    "sample",
    "training",
    "notebook_accuracy",
    "models",
    CNN,
    "models.resnet50_scratch",
]
GENERATED_EDITS: dict[str, str] = {}
for key, out_of_range in OUT_OF_RANGE.items():
    GENERATED_EDITS |= invalid_edits(key, out_of_range)
for section in SECTIONS:
    GENERATED_EDITS |= {f"{section}={value}": section for value in ("null", "3", "a", "[]")}
INVALID_EDITS = GENERATED_EDITS | {
    "models.fast94.warmup_fraction=0.1": "models.fast94.warmup_fraction: 0.1: Input should be 0",
    "epochs=0": "epochs: 0: ",
    "epochs='15'": "epochs: '15': ",
    "epochs=1.5": "epochs: 1.5: ",
    "epochs=null": "epochs: None: ",
    "epochs=true": "epochs: True: ",
    "epochs=[15]": "epochs: [15]: ",
    "~epochs": "epochs: missing",
    "batch_size=-1": "batch_size: -1: ",
    "validation_split=1.5": "validation_split: 1.5: ",
    "validation_split=0": "validation_split: 0: ",
    "validation_split=.nan": "validation_split: nan: ",
    "seed=-1": "seed: -1: ",
    "dataset=mnist": "dataset: 'mnist': ",
    "epoch=3": "epoch: 3: ",
    "momentum=0.9": "momentum: 0.9: ",  # belongs under `training`
    "training.epochs=3": "training.epochs: 3: ",  # belongs at the top level
    "~training": "training: missing",
    "sample.images_per_file=0": "sample.images_per_file: 0: ",
    "training.tta_views=true": "training.tta_views: True: Input should be 1",
    "training.tta_views=2.0": "training.tta_views: 2.0: Input should be 2",
    f"{CNN}.tta_views=true": f"{CNN}.tta_views: True: Input should be 1",
    "models={}": "models: {}: ",
    "models=[simple_cnn]": "models: ['simple_cnn']: ",
    "models.vgg={weights: random, learning_rate: 0.1}": (
        "models.vgg: there is no stages/architectures/vgg.py; write it, or correct the name"
    ),
    f"{CNN}.build_argument={{a: 1}}": f"{CNN}.build_argument",
    f"{CNN}.learning_rate=0": f"{CNN}.learning_rate: 0: ",
    f"{CNN}.learning_rate=.inf": f"{CNN}.learning_rate: inf: ",
    f"{CNN}.epochs=0": f"{CNN}.epochs: 0: ",
    f"{CNN}.batch_size=0": f"{CNN}.batch_size: 0: ",
    f"{CNN}.momentum=1.0": f"{CNN}.momentum: 1.0: ",
    f"{CNN}.tta_views=3": f"{CNN}.tta_views: 3: ",
    f"{CNN}.weights=mine": f"{CNN}.weights: 'mine': ",
    "notebook_accuracy.linear=0.5": "notebook_accuracy: linear: unknown model; models are ",
    "~models.simple_cnn": "notebook_accuracy: simple_cnn: unknown model; models are ",
    "notebook_accuracy.simple_cnn=1.0": "notebook_accuracy.simple_cnn: 1.0: ",
    "notebook_accuracy.unknown_key=[]": "notebook_accuracy.unknown_key",
}
for value in INVALID_TYPES.values():
    INVALID_EDITS[f"notebook_accuracy.simple_cnn={value}"] = "notebook_accuracy.simple_cnn"


@pytest.mark.parametrize(("edit", "expected"), INVALID_EDITS.items(), ids=INVALID_EDITS)
def test_invalid_value_is_refused_with_its_key(folder: Path, edit: str, expected: str) -> None:
    edit_params(folder, edit)
    assert_refused(f"params.yaml: {expected}")


def test_an_invalid_value_of_every_key_is_tested() -> None:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    tested = {*OUT_OF_RANGE, *SECTIONS}
    assert set(content) <= tested
    for name in ("folder", "sample", "training"):
        assert {f"{name}.{key}" for key in content[name]} <= tested


def exponential_aliases(first: str, reference: str) -> str:
    """A few lines that expand to ten thousand million values if aliases are followed."""
    lines = [f"x0: &x0 {first}"]
    for level in range(1, 11):
        content = reference.format(", ".join([f"*x{level - 1}"] * 10))
        lines.append(f"x{level}: &x{level} {content}")
    return "\n".join(lines) + "\n"


INVALID_TEXTS: dict[str, tuple[Callable[[str], str], str]] = {
    "empty": (lambda _: "", "the file: None"),
    "unclosed list": (lambda _: "epochs: [", "line 1: not valid YAML"),
    "a list": (lambda _: "- a", "the file: ['a']"),
    "a zero byte": (lambda _: "\x00", "not valid YAML"),
    "one key only": (lambda _: "epochs: 3", "missing"),
    "tabs": (lambda text: text.replace("  seed", "\tseed"), "line 6: not valid YAML"),
    "two documents": (lambda text: f"{text}---\na: 1\n", "not valid YAML"),
    "duplicate key": (lambda text: f"{text}epochs: 3\n", 'duplicate key "epochs"'),
    "duplicate nested key": (
        lambda text: text.replace("    dropout: 0.5", "    dropout: 0.5\n    dropout: 0.4"),
        'duplicate key "dropout"',
    ),
    "duplicate model": (lambda text: f"{text}  simple_cnn: 1\n", 'duplicate key "simple_cnn"'),
    "alias": (lambda text: f"{text}a: &a 1\nb: *a\n", "the alias *a is not allowed"),
    "exponential aliases": (
        lambda _: exponential_aliases("[lol]", "[{}]"),
        "the alias *x0 is not allowed",
    ),
    "exponential merges": (
        lambda _: exponential_aliases("{a: 1}", "{{<<: [{}]}}"),
        "the alias *x0 is not allowed",
    ),
    "alias of itself": (lambda _: "models: &a [*a]", "the alias *a is not allowed"),
    "deep nesting": (lambda _: "epochs: " + "[" * 2_000 + "]" * 2_000, "not valid YAML"),
    "Python object": (
        lambda text: text.replace("epochs: 15", "epochs: !!python/object/apply:os.getpid []"),
        "line 14: not valid YAML: the tag !!python/object/apply:os.getpid is not allowed",
    ),
    "own tag": (lambda text: text.replace("epochs: 15", "epochs: !mine 15"), "the tag !mine is"),
    "infinite epochs": (lambda text: text.replace("epochs: 15", "epochs: 1e400"), "epochs: inf"),
    "infinite rate": (
        lambda text: text.replace("rate: 0.001", "rate: 1e400"),
        "learning_rate: inf",
    ),
    "rate NaN": (lambda text: text.replace("rate: 0.001", "rate: .nan"), "learning_rate: nan"),
    "date that does not exist": (
        lambda text: text.replace("epochs: 15", "epochs: 2026-02-30"),
        "not valid YAML: day is out of range",
    ),
    "hexadecimal number without end": (
        lambda text: text.replace("epochs: 15", f"epochs: 0x{'f' * 20_000}"),
        "not valid YAML: Exceeds the limit",
    ),
    "character that does not exist": (
        lambda text: text.replace("epochs: 15", 'epochs: "\\UFFFFFFFF"'),
        "not valid YAML: Python int too large",
    ),
    "lone surrogate": (
        lambda text: text.replace("dropout: 0.5", 'dropout: "\\ud800"'),
        "models.simple_cnn.dropout",
    ),
    "5,000 digits": (lambda text: text.replace("epochs: 15", f"epochs: {'9' * 5000}"), "digits"),
    "long text": (lambda text: text.replace("epochs: 15", f"epochs: {'x' * 50_000}"), "epochs: "),
    "number as key": (lambda text: f"{text}1: 2\n", "Keys should be strings"),
    "list as key": (lambda text: f"{text}? [a]\n: 1\n", "Keys should be strings"),
    "list of lists as key": (lambda text: f"{text}? [[a]]\n: 1\n", "unhashable type"),
    "long key": (lambda text: f"{text}? {'k' * 50_000}\n: 1\n", "kkk: 1: Extra inputs"),
    "long tag": (lambda text: f"{text}a: !{'t' * 50_000} 1\n", "the tag !ttt"),
    "another YAML version": (
        lambda text: f"%YAML 9.9\n---\n{text}",
        "incompatible YAML document",
    ),
    "yes as a boolean": (lambda text: text.replace("epochs: 15", "epochs: yes"), "epochs: 'yes'"),
    "escape codes": (lambda text: f'{text}"a\\e]0;b\\a": 1\n', "not permitted"),
}


# Values that YAML's own tags turn into something else, or cannot.
for tagged in (
    *("!!bool maybe", "!!bool ''", "!!int ''", "!!int _", "!!int x", "!!int [1]", "!!float ''"),
    *(
        "!!float e",
        "!!float 15",
        "!!null x",
        "!!str [a]",
        "!!map 3",
        "!!seq {a: 1}",
        "!!set {a, b}",
    ),
    *("!!omap [a]", "!!pairs [a]", "!!binary a", "!!timestamp x", "!<tag:yaml.org,2002:int> x"),
):
    INVALID_TEXTS[tagged] = (
        lambda text, value=tagged: text.replace("epochs: 15", f"epochs: {value}"),  # type: ignore[misc]
        "line 14: not valid YAML: the tag !!",
    )


@pytest.mark.parametrize(("edit", "expected"), INVALID_TEXTS.values(), ids=INVALID_TEXTS)
def test_invalid_file_is_refused(folder: Path, edit: Callable[[str], str], expected: str) -> None:
    file = folder / "params.yaml"
    file.write_text(edit(file.read_text()))
    assert_refused(expected)


CHAINED = [*"[{!-'#\n\"", "- ", "-\n", "? ", ": ", "{a: ", "*a ", "&a ", "!!str "]


@pytest.mark.parametrize("chained", CHAINED)
@pytest.mark.parametrize("count", [30_000, 100_000])
def test_chained_signs_are_refused_in_seconds(folder: Path, chained: str, count: int) -> None:
    (folder / "params.yaml").write_text(chained * count)
    started = time.monotonic()
    assert_refused("params.yaml: ")
    assert time.monotonic() - started < 30  # less than 4 s without other load


INVALID_NAMES = {
    "NUL": r"a\0b",
    "lone surrogate": r"\ud800",
    "escape code": r"\e[31m",
    "line break": r"a\nb",
    "right to left": r"a\u202e",
    "another file": "../training/network",
    "the same file": "simple_cnn/../simple_cnn",
    "absolute path": "/etc/passwd",
    "file name": "simple_cnn.py",
    "empty": "",
    "inner space": "a b",
    "space at the end": "simple_cnn ",
    "full-width letter": "\uff53imple_cnn",
    "101 letters": "a" * 101,
    "longer than a file name": "a" * 300,
    "metrics/comparison.json": "comparison",
    "metrics/provenance/data.json": "data",
}
for name in [
    *".*?~é",
    "..",
    "a.b",
    "a@b",
    "a:b",
    "a,b",
    "${a}",
    "-a",
    "-h",
    "1a",
    "_a",
    "__init__",
]:
    INVALID_NAMES[name] = name


@pytest.mark.parametrize("name", INVALID_NAMES.values(), ids=INVALID_NAMES)
def test_model_name_that_cannot_name_a_module_is_refused(folder: Path, name: str) -> None:
    file = folder / "params.yaml"
    entry = f'models:\n  "{name}": {{weights: random, learning_rate: 0.1}}\n'
    file.write_text(file.read_text().replace("models:\n", entry))
    assert_refused(
        ": a model's name is up to 100 letters, digits and underscores, beginning with a"
    )


@pytest.mark.parametrize("name", ["CON", "con", "class", "None", "Simple_CNN2", "a" * 100])
def test_model_without_architecture_file_is_refused(folder: Path, name: str) -> None:
    file = folder / "params.yaml"
    file.write_text(
        file.read_text().replace("models:\n", f'models:\n  "{name}": {{weights: random}}\n')
    )
    assert_refused(f"models.{name}: there is no stages/architectures/{name}.py; write it, or")
    assert_refused(f"models.{name}.learning_rate: missing")


def test_five_problems_are_shown_and_the_others_counted(folder: Path) -> None:
    invalid = ["dataset=x", "seed=-1", "epochs=0", "batch_size=0", "training.momentum=2.0"]
    for edit in invalid:
        edit_params(folder, edit)
    for edit in invalid:
        assert_refused(f"{edit.split('=')[0]}: ")
    edit_params(folder, "training.translate=32")
    edit_params(folder, f"{CNN}.flip=up")
    with pytest.raises(StageError, match=r"training.momentum: 2.0: [^;]*; and 2 more$"):
        params.load()


def test_unreadable_file_is_refused(folder: Path) -> None:
    file = folder / "params.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    assert_refused("params.yaml: not valid YAML")
    file.unlink()
    assert_refused("params.yaml: No such file or directory; run from the repository's root")
    file.mkdir()
    assert_refused("params.yaml: Is a directory")


@pytest.mark.parametrize(
    "stage",
    [
        "check_params",
        "fetch",
        "fetch_weights",
        "preprocess",
        "train simple_cnn",
        "evaluate simple_cnn",
        "compare",
    ],
)
def test_every_stage_checks_params_before_it_works(clone: Repository, stage: str) -> None:
    clone.set_params("validation_split=1.5")
    before = clone.check("git", "status", "--porcelain", "--ignored")
    result = clone.run(sys.executable, "-m", *f"stages.{stage}".split())
    assert result.returncode == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert errors == ["error: params.yaml: validation_split: 1.5: Input should be less than 1"]
    assert "Traceback" not in result.stderr
    assert clone.check("git", "status", "--porcelain", "--ignored") == before


def test_dvc_tracks_every_training_parameter() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    tracked = ["seed", "epochs", "batch_size", "training", "models.${key}"]
    assert stages["train"]["do"]["params"] == tracked
    assert stages["compare"]["params"] == [{"params.yaml": None}]  # the whole file
