"""Servers on loopback, and how a repository's stages are made to use them."""

import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from stages.sources.download import CHUNK_BYTES
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

    def handle_error(self, *_: object) -> None:
        """Print nothing: clients hang up on purpose."""


class FaultyServer(LoopbackServer):
    """Serves `content`, with the fault that the path names; `/recovers` is busy twice."""

    def __init__(self, content: bytes) -> None:
        super().__init__(FaultyHandler)
        self.content = content
        self.requests: list[str] = []


class FaultyHandler(BaseHTTPRequestHandler):
    """One request to `FaultyServer`."""

    server: FaultyServer

    def do_GET(self) -> None:
        fault = self.path.strip("/")
        self.server.requests.append(fault)
        busy = fault == "recovers" and self.server.requests.count(fault) < 3
        status = 503 if busy else {"404": 404, "500": 500}.get(fault)
        if status:
            self.send_error(status)
        elif fault == "silent":
            time.sleep(2)
        elif fault in ("trickle", "trickling-header"):
            self.trickle(b"HTTP/1.1 200 OK\r\n" + b"\r\n" * (fault == "trickle"))
        elif fault == "not-http":
            self.wfile.write(b"hello\r\n")
        elif fault in ("half-a-chunk", "endless"):
            self.send_chunks(endless=fault == "endless")
        else:
            self.send_content(fault)

    def trickle(self, beginning: bytes) -> None:
        self.wfile.write(beginning)
        while True:  # until the client hangs up
            self.wfile.write(b"x")
            time.sleep(0.2)

    def send_chunks(self, endless: bool) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"10000\r\n" + bytes(100))
        if endless:
            self.wfile.write(bytes(65436) + b"\r\n")
            while True:  # until the client hangs up
                self.wfile.write(b"10000\r\n" + bytes(65536) + b"\r\n")

    def send_content(self, fault: str) -> None:
        content = self.server.content
        if fault == "other-content":
            content = bytes(len(content))
        elif fault == "too-large":
            content *= 2
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if fault == "slow":
            for start in range(0, len(content), CHUNK_BYTES):
                self.wfile.write(content[start : start + CHUNK_BYTES])
                time.sleep(0.04)
        else:
            self.wfile.write(content[: len(content) // 2] if fault == "half" else content)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def set_constants(repository: Repository, file: str, **constants: object) -> None:
    """Replace the values of constants in a file of the repository's code."""
    path = repository.path / file
    code = path.read_text()
    for name, value in constants.items():
        assignment = rf"^{name} = (\(.*?^\)|.*?$)"  # on one line or in parentheses
        code, count = re.subn(assignment, f"{name} = {value!r}", code, flags=re.M | re.S)
        assert count == 1, name
    path.write_text(code)
