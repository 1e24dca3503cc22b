"""What comes from outside: archives and weights, whole or broken, near or out of reach."""

import gzip
import io
import os
import pickle
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.support import archive, sample
from stages.support.errors import StageError
from tests.conftest import Repository

PICTURES = 20
# Nothing listens there, so what needs the network fails at once, wherever the tests run.
NO_NETWORK = {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}


def batch(**changes: Any) -> dict[bytes, Any]:
    content = {"data": np.zeros((PICTURES, 3072), np.uint8), "labels": [0] * PICTURES}
    return {key.encode(): value for key, value in {**content, **changes}.items()}


def write(path: Path, members: dict[str, Any], kind: bytes = tarfile.REGTYPE) -> Path:
    """An archive of whole batches but for `members`; None leaves a batch out."""
    with tarfile.open(path, "w:gz") as tar:
        for name, member in ({name: batch() for name in archive.BATCHES} | members).items():
            if member is None:
                continue
            content = member if isinstance(member, bytes) else pickle.dumps(member, 3)
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            if name in members:
                info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info, io.BytesIO(content))
    return path


class Harmful:
    """Runs a command where it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


BROKEN: dict[str, tuple[Any, str]] = {
    "missing batch": (None, "test_batch is missing"),
    "harmful pickle": (Harmful(), "which is not allowed"),
    "no pickle": (b"hello", "not a readable batch"),
    "empty": (b"", "not a readable batch"),
    "a list": ([1, 2], "not a dictionary"),
    "no labels": ({b"data": np.zeros((PICTURES, 3072), np.uint8)}, "not a dictionary with"),
    "a row less": (batch(data=np.zeros((PICTURES - 1, 3072), np.uint8)), "has shape (19, 3072)"),
    "other size": (batch(data=np.zeros((PICTURES, 784), np.uint8)), "has shape (20, 784)"),
    "float data": (batch(data=np.zeros((PICTURES, 3072), np.float16)), "not a uint8 array"),
    "label 10": (batch(labels=[10] * PICTURES), "whole numbers from 0 to 9"),
    "label -1": (batch(labels=[-1] * PICTURES), "whole numbers from 0 to 9"),
    "label text": (batch(labels=["0"] * PICTURES), "whole numbers from 0 to 9"),
    "a label less": (batch(labels=[0] * (PICTURES - 1)), "not a list of 20 numbers"),
    "too large": (b"0" * 200_000, "not a regular file of at most"),
}


@pytest.mark.parametrize(("member", "reason"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_batch_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: Any, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "broken.tar.gz", {"test_batch": member})
    with pytest.raises(StageError) as caught:
        list(archive.read_batches(path, PICTURES))
    assert "broken.tar.gz" in str(caught.value)
    assert reason in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["broken.tar.gz"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_a_batch_that_is_no_file_is_refused(tmp_path: Path, kind: bytes) -> None:
    path = write(tmp_path / "link.tar.gz", {"test_batch": b""}, kind)
    with pytest.raises(StageError, match="test_batch: not a regular file"):
        list(archive.read_batches(path, PICTURES))


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.tar.gz", {}).read_bytes()
    assert len(list(archive.read_batches(tmp_path / "whole.tar.gz", PICTURES))) == 6
    for name, content in {
        "truncated": whole[: len(whole) // 2],
        "empty": b"",
        "text": b"<html>not found</html>",
        "packed text": gzip.compress(b"hello" * 1000),
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(StageError, match=name):
            list(archive.read_batches(path, PICTURES))


def test_the_sample_has_equal_bytes_each_time_and_all_classes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        sample.write(tmp_path / name, PICTURES, seed=7)
    sample.write(tmp_path / "other", PICTURES, seed=8)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert (tmp_path / "one").read_bytes() != (tmp_path / "other").read_bytes()
    for _, images, labels in archive.read_batches(tmp_path / "one", PICTURES):
        assert images.shape == (PICTURES, 32, 32, 3)
        assert np.bincount(labels).tolist() == [2] * 10


def assert_one_line(repository: Repository, stage: str, expected: str, **environment: str) -> None:
    """The stage fails with that line, and data/ stays as it was."""

    def files() -> list[tuple[Path, float]]:
        return sorted(
            (p, p.stat().st_mtime) for p in repository.path.glob("data/**/*") if p.is_file()
        )

    before = files()
    result = repository.run(sys.executable, "-m", f"stages.{stage}", **environment)
    assert result.returncode == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert expected in errors[0]
    assert "Traceback" not in result.stderr
    assert files() == before


def test_without_network_fetch_names_the_two_ways_on(clone: Repository, tmp_path: Path) -> None:
    clone.set_params(dataset="cifar10")
    assert_one_line(clone, "fetch", "make demo", **NO_NETWORK)
    assert_one_line(clone, "fetch", "set CIFAR10_ARCHIVE=", **NO_NETWORK)
    home = str(tmp_path / "keras")
    assert_one_line(clone, "fetch_weights", "set RESNET50_WEIGHTS=", KERAS_HOME=home, **NO_NETWORK)


def test_a_local_archive_is_taken_and_named(clone: Repository, tmp_path: Path) -> None:
    clone.set_params(dataset="cifar10")
    sample.write(tmp_path / "small.tar.gz", PICTURES, seed=0)
    small = str(tmp_path / "small.tar.gz")
    assert_one_line(clone, "fetch", "has shape (20, 3072) instead of", CIFAR10_ARCHIVE=small)
    assert_one_line(clone, "fetch", "No such file", CIFAR10_ARCHIVE="/nowhere")

    black = np.zeros((10_000, 32, 32, 3), np.uint8), np.zeros(10_000, np.uint8)
    archive.write_batches(tmp_path / "full.tar.gz", dict.fromkeys(archive.BATCHES, black))
    output = clone.check(
        sys.executable, "-m", "stages.fetch", CIFAR10_ARCHIVE=str(tmp_path / "full.tar.gz")
    )
    assert "sha256 " in output
    assert "NOTICE: this is not the official CIFAR-10 archive" in output


def test_weights_that_do_not_fit_are_refused(clone: Repository, tmp_path: Path) -> None:
    clone.set_params(dataset="cifar10")
    broken = tmp_path / "broken.weights.h5"
    broken.write_bytes(b"no weights")
    assert_one_line(clone, "fetch_weights", "not weights of ResNet50", RESNET50_WEIGHTS=str(broken))
    assert_one_line(clone, "fetch_weights", "no such file", RESNET50_WEIGHTS="/nowhere")


def test_a_local_weights_file_is_taken(clone: Repository, tmp_path: Path) -> None:
    made = clone.path / "data/weights/imagenet/resnet50_notop.weights.h5"
    local = tmp_path / "mine.weights.h5"
    local.write_bytes(made.read_bytes())
    clone.set_params(dataset="cifar10")
    clone.check(sys.executable, "-m", "stages.fetch_weights", RESNET50_WEIGHTS=str(local))
    assert made.read_bytes() == local.read_bytes()
