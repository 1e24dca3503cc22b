"""Downloads from a server that fails in every way."""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stages.sources import download
from tests.sources.servers import FaultyServer

CONTENT = np.random.default_rng(0).bytes(500_000)
CHECKSUM = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
FAULTS = {
    "404": "HTTP status 404 Not Found",
    "500": "HTTP status 500 Internal Server Error",
    "silent": "Read timed out",
    "slow": "not finished within 2 s",
    "half": "IncompleteRead",
    "half-a-chunk": "IncompleteRead",
    "other-content": "does not match the known hash",
    "too-large": "the server sent more than 500000 bytes",
    "endless": "the server sent more than 500000 bytes",
    "not-http": "BadStatusLine('hello",
}
TRANSIENT = {"500", "silent", "half", "half-a-chunk", "not-http"}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "READ_TIMEOUT", 1)
    monkeypatch.setattr(download, "RETRY_DELAYS", (0.1, 0.2))
    with FaultyServer(CONTENT) as running:
        yield running


@pytest.mark.parametrize(("fault", "reason"), FAULTS.items(), ids=FAULTS)
def test_failed_download_gives_reason_and_leaves_no_file(
    server: FaultyServer,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    reason: str,
) -> None:
    monkeypatch.setattr(download, "TOTAL_TIMEOUT", 2 if fault == "slow" else 6)
    started = time.monotonic()
    with pytest.raises(download.UnavailableError) as caught:
        download.download(f"{server.url}/{fault}", CHECKSUM, len(CONTENT), tmp_path / "file")
    assert time.monotonic() - started < 8
    assert reason in str(caught.value)
    attempts = 3 if fault in TRANSIENT else 1
    assert server.requests == [fault] * attempts
    printed = capfd.readouterr()
    assert printed.out.count("; trying again in ") == attempts - 1
    assert printed.err == ""  # no progress bar without a terminal
    assert list(tmp_path.iterdir()) == []


def test_download_from_busy_server_succeeds_at_third_attempt(
    server: FaultyServer, tmp_path: Path
) -> None:
    download.download(f"{server.url}/recovers", CHECKSUM, len(CONTENT), tmp_path / "file")
    assert server.requests == ["recovers"] * 3
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_unreachable_host_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(download.UnavailableError, match="Connection refused"):
        download.download("http://127.0.0.1:9/file", CHECKSUM, len(CONTENT), tmp_path / "file")
    assert "trying again" not in capfd.readouterr().out
