"""Downloads from servers with faults, and files that are in data/downloads/ already."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stages.common import paths
from stages.common.errors import StageError
from stages.sources import download
from tests.sources.servers import FaultyServer, sha256

CONTENT = np.random.default_rng(0).bytes(500_000)
CHECKSUM = sha256(CONTENT)
FAULTS = {
    "404": "404 Client Error: Not Found",
    "silent": "Read timed out",
    "half": "IncompleteRead",
    "other-content": "does not match the known hash",
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "TIMEOUT", 0.5)
    monkeypatch.setattr("time.sleep", lambda _: None)  # pooch waits before it tries again
    with FaultyServer(CONTENT) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where downloads are kept."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path / paths.DOWNLOADS


def source(server: FaultyServer, fault: str) -> download.ServerFile:
    return download.ServerFile(f"{server.url}/{fault}", CHECKSUM)


@pytest.mark.parametrize(("fault", "reason"), FAULTS.items(), ids=FAULTS)
def test_failed_download_ends_in_one_line_and_leaves_no_file(
    server: FaultyServer, folder: Path, capfd: pytest.CaptureFixture[str], fault: str, reason: str
) -> None:
    with pytest.raises(StageError) as caught:
        download.first_available("it", [source(server, fault)])
    message = str(caught.value)
    assert message.startswith(f"error: it could not be fetched: {server.url}/{fault}: ")
    assert reason in message
    remedies = f"put {fault} ({CHECKSUM}) into data/downloads/, or run `make demo`"
    assert message.endswith(f"; without a network, {remedies}")
    assert server.requests == [fault] * 2
    assert capfd.readouterr().err == ""  # no progress bar without a terminal, and no warning
    assert list(folder.iterdir()) == []


def test_missing_certificates_are_a_failure_of_the_server_alone(
    server: FaultyServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere.pem")
    encrypted = download.ServerFile("https://127.0.0.1:9/file", CHECKSUM)
    valid = source(server, "valid")
    assert download.first_available("it", [encrypted, valid])[0] is valid
    with pytest.raises(StageError, match=r"file: .* invalid path: /nowhere.pem; "):
        download.first_available("it", [encrypted])


def test_kept_download_is_not_repeated_and_comes_before_other_sources(
    server: FaultyServer, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = source(server, "404"), source(server, "valid")
    for _ in range(2):
        found = download.first_available("it", [first, second])
        assert found == (second, paths.DOWNLOADS / "valid")
    assert server.requests == ["404", "404", "valid"]
    assert [path.read_bytes() for path in folder.iterdir()] == [CONTENT]
    fetching, notice = capsys.readouterr().out.splitlines()
    assert fetching == f"fetching {first}"
    assert notice.startswith("NOTICE: 404 Client Error: Not Found")
    assert notice.endswith(f"; trying {second}")


def test_other_file_in_place_of_a_download_is_refused_and_stays(
    server: FaultyServer, folder: Path
) -> None:
    folder.mkdir(parents=True)
    (folder / "valid").write_bytes(b"another file")
    with pytest.raises(StageError) as caught:
        download.first_available("it", [source(server, "valid")])
    checksums = f"has {sha256(b'another file')} instead of {CHECKSUM}"
    assert str(caught.value).startswith(f"error: data/downloads/valid: {checksums}; replace it")
    assert [path.read_bytes() for path in folder.iterdir()] == [b"another file"]
    assert server.requests == []
