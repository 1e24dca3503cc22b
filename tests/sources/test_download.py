"""Downloads from a server that fails in every way."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stages.common import paths
from stages.common.errors import StageError
from stages.sources import download
from tests.repository import ROOT
from tests.sources.servers import FaultyServer

CONTENT = np.random.default_rng(0).bytes(500_000)
CHECKSUM = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
FAULTS = {
    "404": "HTTP status 404 Not Found",
    "500": "HTTP status 500 Internal Server Error",
    "silent": "Read timed out",
    "slow": "not finished within 1 s",
    "trickle": "not finished within 1 s",
    "trickling-header": "not finished within 1 s",
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
    monkeypatch.setattr(download, "TOTAL_TIMEOUT", 1 if "1 s" in reason else 6)
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


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where downloads are kept."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path / paths.DOWNLOADS


def files(folder: Path) -> dict[str, bytes]:
    """The files in a folder and below, by name."""
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_mirror_is_tried_when_the_time_limit_falls_into_a_pause(
    server: FaultyServer,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(download, "RETRY_DELAYS", (60,))
    monkeypatch.setattr(download, "TOTAL_TIMEOUT", 1)
    first = download.ServerFile(f"{server.url}/500", CHECKSUM, len(CONTENT))
    mirror = download.ServerFile(f"{server.url}/valid", CHECKSUM, len(CONTENT))
    source, file = download.first_available("it", [first, mirror], "give up")
    assert source is mirror
    assert files(folder) == {"valid": CONTENT}
    assert file.read_bytes() == CONTENT
    cause = "HTTP status 500 Internal Server Error; then not finished within 1 s"
    assert f"NOTICE: {cause}; trying {mirror}" in capsys.readouterr().out
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_all_failures_are_named_with_address_and_cause(server: FaultyServer, folder: Path) -> None:
    first, second = (
        download.ServerFile(f"{server.url}/{fault}", CHECKSUM, len(CONTENT))
        for fault in ("404", "half")
    )
    with pytest.raises(StageError) as caught:
        download.first_available("it", [first, second], "give up")
    assert f"it could not be fetched: {server.url}/404: HTTP status 404" in str(caught.value)
    assert f"; {server.url}/half: " in str(caught.value)
    assert str(caught.value).endswith("; give up")
    assert files(folder) == {}


def test_kept_download_is_not_repeated_and_comes_before_other_sources(
    server: FaultyServer, folder: Path
) -> None:
    first, second = (
        download.ServerFile(f"{server.url}/{name}", CHECKSUM, len(CONTENT))
        for name in ("404", "second")
    )
    for _ in range(2):
        source, _ = download.first_available("it", [first, second], "give up")
        assert source is second
    assert server.requests == ["404", "second"]


def test_other_file_in_place_of_a_download_is_refused_and_stays(
    server: FaultyServer, folder: Path
) -> None:
    source = download.ServerFile(f"{server.url}/valid", CHECKSUM, len(CONTENT))
    file = folder / "valid"
    folder.mkdir(parents=True)
    file.write_bytes(CONTENT[:-1])
    with pytest.raises(StageError, match=f"valid: not the file with sha256 {CHECKSUM[7:]}; move"):
        download.first_available("it", [source], "give up")
    assert files(folder) == {"valid": CONTENT[:-1]}
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(StageError, match="valid: not the file with"):
        download.first_available("it", [source], "give up")
    assert server.requests == []


def test_what_a_killed_download_left_is_removed(server: FaultyServer, folder: Path) -> None:
    source = download.ServerFile(f"{server.url}/valid", CHECKSUM, len(CONTENT))
    left = folder / ".partial-valid.scratch" / "tmpabc"
    left.parent.mkdir(parents=True)
    left.write_bytes(CONTENT[:1000])
    download.first_available("it", [source], "give up")
    assert files(folder) == {"valid": CONTENT}


def test_one_process_downloads_at_a_time(server: FaultyServer, folder: Path) -> None:
    # `dvc exp run --queue` runs several at the same time, which share the downloads.
    script = (
        "from stages.sources import download\n"
        f"source = download.ServerFile({server.url!r} + '/slow', {CHECKSUM!r}, {len(CONTENT)})\n"
        "download.first_available('it', [source], 'give up')"
    )
    command = [sys.executable, "-c", script]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [subprocess.Popen(command, env=environment) for _ in range(2)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    assert server.requests == ["slow"]
