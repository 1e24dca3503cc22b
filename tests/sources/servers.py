"""Servers on loopback, and how a repository's stages are made to use them."""

import hashlib
import io
import select
import tarfile
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from stages.sources import cifar
from tests.repository import Repository

# Nothing listens there, so whatever needs the network fails at once, on any machine.
NO_NETWORK = {
    "https_proxy": "http://127.0.0.1:9",
    "http_proxy": "http://127.0.0.1:9",
    "NPM_CONFIG_REGISTRY": "http://127.0.0.1:9",
    "NPM_CONFIG_FETCH_RETRIES": "0",
}


class LoopbackServer(ThreadingHTTPServer):
    """Serves on a free port of loopback inside a `with` block."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: object) -> None: ...  # clients hang up on purpose


class FaultyServer(LoopbackServer):
    """Serves `pages` by path, and `content` elsewhere with the fault that the path names."""

    def __init__(self, content: bytes) -> None:
        super().__init__(FaultyHandler)
        self.content, self.pages, self.requests = content, dict[str, bytes](), list[str]()


class FaultyHandler(BaseHTTPRequestHandler):
    """One request to `FaultyServer`."""

    server: FaultyServer

    def do_GET(self) -> None:
        fault = self.path.strip("/")
        content = self.server.pages.get(fault, self.server.content)
        self.server.requests.append(fault)
        if fault == "404":
            self.send_error(404)
        elif fault == "silent":
            select.select([self.connection], [], [], 3)  # until the client hangs up
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            half = content[: len(content) // 2]
            faulty = {"half": half, "other-content": bytes(len(content))}
            self.wfile.write(faulty.get(fault, content))

    def log_message(self, *_: object) -> None: ...


def sha256(content: bytes) -> str:
    """The checksum of a file's content, as sources have it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def pack(files: Mapping[str, bytes], folder: str) -> bytes:
    """A tar archive with files in a folder, as servers and npm packages have it."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz", compresslevel=1) as tar:
        directory = tarfile.TarInfo(folder)
        directory.type = tarfile.DIRTYPE
        tar.addfile(directory)
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


def substitute(repository: Repository, file: str, replacements: Mapping[str, str]) -> None:
    """Replace texts in a file of the repository's code."""
    path = repository.path / file
    code = path.read_text()
    for old, new in replacements.items():
        assert old in code, old
        code = code.replace(old, new)
    path.write_text(code)


def expect_archive(repository: Repository, content: bytes, server: str = cifar.SERVER) -> None:
    """Let a repository's stages take an archive for that of CIFAR-10, and a server for its own."""
    changes = {cifar.CIFAR10.known_hash: sha256(content), cifar.SERVER: server}
    substitute(repository, "stages/sources/cifar.py", changes)
