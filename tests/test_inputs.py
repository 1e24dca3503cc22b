"""What comes from outside: archives and weights, near or out of reach."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from stages.support import archive, sample
from tests.conftest import ROOT, Repository

PICTURES = 20
# Nothing listens there, so what needs the network fails at once, wherever the tests run.
NO_NETWORK = {
    "https_proxy": "http://127.0.0.1:9",
    "http_proxy": "http://127.0.0.1:9",
    "NPM_CONFIG_REGISTRY": "http://127.0.0.1:9",
    "NPM_CONFIG_FETCH_RETRIES": "0",
}


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


def test_without_network_fetch_names_the_two_ways_on(clone: Repository) -> None:
    clone.set_params(dataset="cifar10")
    ways = "set CIFAR10_ARCHIVE=/path/to/cifar-10-python.tar.gz or run `make demo`"
    assert_one_line(clone, "fetch", ways, **NO_NETWORK)
    assert_one_line(clone, "fetch_weights", "set RESNET50_WEIGHTS=", **NO_NETWORK)


def test_a_local_archive_is_taken_and_named(clone: Repository, tmp_path: Path) -> None:
    clone.set_params(dataset="cifar10")
    sample.write(tmp_path / "small.tar.gz", PICTURES, seed=0)
    small = str(tmp_path / "small.tar.gz")
    assert_one_line(clone, "fetch", "has shape (20, 3072) instead of", CIFAR10_ARCHIVE=small)
    assert_one_line(clone, "fetch", "No such file", CIFAR10_ARCHIVE="/nowhere")

    black = np.zeros((10_000, 32, 32, 3), np.uint8), np.zeros(10_000, np.uint8)
    archive.write_batches(tmp_path / "full.tar.gz", dict.fromkeys(archive.BATCHES, black), "black")
    output = clone.check(
        sys.executable, "-m", "stages.fetch", CIFAR10_ARCHIVE=str(tmp_path / "full.tar.gz")
    )
    assert "sha256 " in output
    assert "NOTICE: not the official CIFAR-10 archive" in output


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


def test_stages_that_compute_nothing_do_without_tensorflow() -> None:
    script = (
        "import sys\n"
        "from stages import compare, fetch, fetch_weights, preprocess\n"
        "assert 'keras' not in sys.modules\n"
        "import keras\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    environment = {**os.environ, "KERAS_BACKEND": "numpy"}  # which fetch and fetch_weights set
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, check=True)
