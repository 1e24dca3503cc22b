"""A model's entry in params.yaml is checked against `build` in its architecture file.

Importing Keras takes longer than all checks, so one process makes them for all tests.
"""

import json

import pytest

from tests.params_edits import edit_params, invalid_edits
from tests.repository import copy_project, run_keras_script

CNN = "models.simple_cnn"
SCRATCH = "models.resnet50_scratch"
SMALL = "models.small"  # the model whose architecture file a test writes
SMALL_FILE = "stages/architectures/small.py"

CHECK_ALL = """
import json, os, sys
os.environ.setdefault("KERAS_BACKEND", "numpy")  # faster to import
from pathlib import Path
from types import SimpleNamespace
from stages.common import params
from stages.training import network

network.keras.utils.set_random_seed = lambda seed: None  # it imports TensorFlow
images = SimpleNamespace(image_shape=(32, 32, 3), classes=10)
messages = {}
for case, (text, architecture) in json.loads(Path("cases.json").read_text()).items():
    Path("params.yaml").write_text(text)
    Path("stages/architectures/small.py").write_bytes(architecture.encode("latin-1"))
    sys.modules.pop("stages.architectures.small", None)
    try:
        settings = params.load()
        network.check_arguments(settings)
        if "keras.layers" in architecture:
            network.build("small", settings, images)
        messages[case] = None
    except BaseException as error:  # a StageError, or what would end in a traceback
        messages[case] = str(error)
print(json.dumps(messages))
"""


def build(signature: str, body: str = "pass") -> str:
    """An architecture file whose `build` has this signature."""
    return f"def build({signature}):\n    {body}\n"


def network(layers: str, inputs: str = "keras.Input((32, 32, 3)), ") -> str:
    """An architecture file whose `build` has no arguments and returns these layers."""
    return "import keras\n" + build("", f"return keras.Sequential([{inputs}{layers}])")


def entry(arguments: str = "") -> str:
    """The entry of the model `small`, with the arguments of its `build`."""
    return f"{SMALL}={{weights: random, learning_rate: 0.1, {arguments}}}"


INVALID_ARGUMENTS = {
    **invalid_edits(f"{CNN}.dropout", "-0.1"),
    **invalid_edits("models.resnet50_finetune.preprocessing", "torch"),
    **invalid_edits("models.resnet50_finetune.enlargement", "0"),
    **invalid_edits(f"{SCRATCH}.stem_stride", "3"),
    f"{CNN}.dropout=1.0": f"{CNN}.dropout: 1.0: ",
    f"~{CNN}.dropout": f"{CNN}.dropout: missing",
    f"{CNN}.droput=0.1": f"{CNN}.droput: 0.1: ",
    f"{CNN}.images=0.1": f"{CNN}.images: 0.1: ",
    "models.fast94.images=0.1": "models.fast94.images: 0.1: ",
    f"{CNN}.dropout='0.5'": f"{CNN}.dropout: '0.5': ",
    f"{CNN}.dropout=true": f"{CNN}.dropout: True: ",
    f"{CNN}.dropout=.nan": f"{CNN}.dropout",
    f"{CNN}.weights=imagenet": f"{CNN}.weights: 'imagenet': only 'random' is allowed, as `build`",
    f"{SCRATCH}.dropout=0.1": f"{SCRATCH}.dropout: 0.1: ",
    f"{SCRATCH}.stem_stride=true": f"{SCRATCH}.stem_stride: True: Input should be 1",
    f"{SCRATCH}.stem_stride=4.0": f"{SCRATCH}.stem_stride: 4.0: Input should be 4",
}
# By name: an architecture file, an edit of params.yaml, and the error.
INVALID_ARCHITECTURES = {
    "syntax error": (
        "def build(:\n",
        entry(),
        f"{SMALL_FILE}: cannot be imported: line 1: SyntaxError",
    ),
    "not UTF-8": (
        "a = '\xe9'\n",
        entry(),
        f"{SMALL_FILE}: cannot be imported: line 1: SyntaxError",
    ),
    "zero byte": ("\0", entry(), f"{SMALL_FILE}: cannot be imported: "),
    "UTF-16": (
        "\xff\xfe-N-N",
        entry(),
        f"{SMALL_FILE}: cannot be imported: line 1: SyntaxError",
    ),
    "unknown encoding": (
        "# coding: nope\n",
        entry(),
        f"{SMALL_FILE}: cannot be imported: line 1: ",
    ),
    "failing import": ("\nimport nothing\n", entry(), "cannot be imported: line 2: ModuleNotFound"),
    "sys.exit": ("import sys\nsys.exit(3)\n", entry(), "imported: line 2: SystemExit: 3; correct"),
    "sys.exit without status": (
        "raise SystemExit\n",
        entry(),
        "imported: line 1: SystemExit; corr",
    ),
    "KeyboardInterrupt": (
        "raise KeyboardInterrupt\n",
        entry(),
        "line 1: KeyboardInterrupt; correct",
    ),
    "BaseException": (
        "raise BaseException('x')\n",
        entry(),
        "line 1: BaseException: x; correct it",
    ),
    "endless recursion": (
        build("").replace("pass", "build()") + "build()\n",
        entry(),
        "RecursionErr",
    ),
    "long error": ("raise ValueError('x' * 10**6)\n", entry(), "imported: line 1: ValueError: xxx"),
    "escape codes in an error": ("raise ValueError('\\x1b[31m')\n", entry(), "ValueError: ?[31m;"),
    "error without text": (
        "class Odd(Exception):\n    __str__ = None\nraise Odd\n",
        entry(),
        "cannot be imported: line 3: ",
    ),
    "error in __getattr__": ("def __getattr__(name): raise KeyError(name)\n", entry(), "KeyError"),
    **{
        f"100,000 chained {sign!r}": (f"x = {sign * 100_000}1\n", entry(), "cannot be imported: ")
        for sign in ("-", "not ", "(", "[", "1+", "lambda:")
    },
    "empty file": ("", entry(), f"{SMALL_FILE}: has no function `build`"),
    "build is no function": ("build = 3\n", entry(), f"{SMALL_FILE}: has no function `build`"),
    "missing argument": (build("*, width: int"), entry(), f"{SMALL}.width: missing"),
    "missing argument without type": (build("*, width"), entry(), f"{SMALL}.width: missing"),
    "unknown argument": (build(""), entry("width: 8"), f"{SMALL}.width: 8: "),
    "text for an optional number": (
        build("*, width: int = 8"),
        entry("width: '8'"),
        f"{SMALL}.width: '8': ",
    ),
    "fraction for a whole number": (
        build("*, width: int"),
        entry("width: 8.5"),
        f"{SMALL}.width: 8.5: ",
    ),
    "unknown type hint": (
        build("*, width: 'Nope'"),
        entry("width: 8"),
        f"{SMALL_FILE}: the type hints of `build` cannot be used: name 'Nope' is not defined",
    ),
    "type hint that no YAML value has": (
        "class Width: ...\n" + build("*, width: Width"),
        entry("width: 8"),
        f"{SMALL_FILE}: the type hints of `build` cannot be used: Unable to generate",
    ),
    "unknown argument beside any others": (
        build("**others"),
        entry("width: 8"),
        f"{SMALL}.width: 8: ",
    ),
    "True for 1": (
        "from typing import Literal\n" + build("*, width: Literal[1, 2]"),
        entry("width: true"),
        f"{SMALL}.width: True: Input should be 1",
    ),
    "1 for True": (
        "from typing import Literal\n" + build("*, wide: Literal[True, 'very']"),
        entry("wide: 1"),
        f"{SMALL}.wide: 1: Input should be True",
    ),
    "True for 1 or nothing": (
        "from typing import Literal\n" + build("*, width: Literal[1, 2] | None = None"),
        entry("width: true"),
        f"{SMALL}.width: True: Input should be 1",
    ),
    "training parameter": (
        build("*, momentum: float = 0.99"),
        entry(),
        f"{SMALL_FILE}: `build` has an argument `momentum`, which is a training parameter; rename",
    ),
    "wrong call of a layer": (
        network("keras.layers.Dense()"),
        entry(),
        "small: the network could not be built: line 3: TypeError: Dense.__init__() missing",
    ),
    "sys.exit in build": (
        network("keras.layers.Dense(__import__('sys').exit(3))"),
        entry(),
        "small: the network could not be built: line 3: SystemExit: 3; see stages/architectures/",
    ),
    "no input": (
        network("keras.layers.Dense(10)", inputs=""),
        entry(),
        f"{SMALL_FILE}: `build` must return a Keras model from keras.Input((32, 32, 3)) to",
    ),
    "other input": (
        network("keras.layers.Dense(10)", inputs="keras.Input((3072,)), "),
        entry(),
        "not Sequential with the shapes (None, 3072) and (None, 10); correct it",
    ),
    "9 classes": (
        network("keras.layers.Flatten(), keras.layers.Dense(9)"),
        entry(),
        "not Sequential with the shapes (None, 32, 32, 3) and (None, 9); correct it",
    ),
    "no network": (
        build("", "pass  # keras.layers"),
        entry(),
        "not NoneType with the shapes None and None; correct it",
    ),
    "type hint as text": (
        "from __future__ import annotations\n" + build("*, width: int"),
        entry("width: '8'"),
        f"{SMALL}.width: '8': ",
    ),
}
VALID_ARCHITECTURES = {
    "no arguments": (build(""), entry()),
    "positional argument": (build("width: int"), entry("width: 8")),
    "argument": (build("*, width: int"), entry("width: 8")),
    "optional argument": (build("*, width: int = 8"), entry()),
    "optional argument that is set": (build("*, width: int = 8"), entry("width: 4")),
    "optional argument without type": (build("*, width=8"), entry()),
    "optional argument that no YAML value fits": (
        "class Width: ...\n" + build("*, width: Width = Width()"),
        entry(),
    ),
    "optional argument, None": (build("*, width: int | None = None"), entry()),
    "arguments with the names of pydantic's methods": (
        build("*, json: int, model_config: int, copy: int = 3, _hidden: int = 3, self: int = 3"),
        entry("json: 1, model_config: 1, copy: 1"),
    ),
    "whole number for a float": (build("*, width: float"), entry("width: 8")),
    "network": (network("keras.layers.Flatten(), keras.layers.Dense(10)"), entry()),
    "argument without type": (build("*, width"), entry("width: wide")),
    "weights": (build("*, weights"), entry().replace("random", "imagenet")),
    "images": (build("*, images"), entry()),
}


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """The error of each case above, None if it was accepted."""
    folder = tmp_path_factory.mktemp("project")
    copy_project(folder)
    params = folder / "params.yaml"
    original = params.read_text()
    cases = {edit: (edit, "") for edit in INVALID_ARGUMENTS}
    for name, (architecture, edit, *_) in (INVALID_ARCHITECTURES | VALID_ARCHITECTURES).items():
        cases[name] = (edit, architecture)
    texts = {}
    for name, (edit, architecture) in cases.items():
        params.write_text(original)
        edit_params(folder, edit)
        texts[name] = (params.read_text(), architecture)
    (folder / "cases.json").write_text(json.dumps(texts))
    result: dict[str, str | None] = run_keras_script(CHECK_ALL, folder)
    return result


def assert_refused(message: str | None, expected: str) -> None:
    """The message is one line with the expected text."""
    assert message is not None
    assert message.startswith("error: ")
    assert expected in message
    assert message.isprintable()
    assert len(message) < 600
    print(message)


@pytest.mark.parametrize(("edit", "expected"), INVALID_ARGUMENTS.items(), ids=INVALID_ARGUMENTS)
def test_invalid_argument_of_build_is_refused_with_its_key(
    messages: dict[str, str | None], edit: str, expected: str
) -> None:
    assert_refused(messages[edit], f"error: params.yaml: {expected}")


@pytest.mark.parametrize("case", INVALID_ARCHITECTURES)
def test_architecture_that_does_not_fit_its_entry_is_refused(
    messages: dict[str, str | None], case: str
) -> None:
    *_, expected = INVALID_ARCHITECTURES[case]
    assert_refused(messages[case], expected)


@pytest.mark.parametrize("case", VALID_ARCHITECTURES)
def test_architecture_that_fits_its_entry_is_accepted(
    messages: dict[str, str | None], case: str
) -> None:
    assert messages[case] is None
