"""Fetching the images: a download, and files that are in data/downloads/ already."""

import json
from pathlib import Path

import numpy as np
import pytest

from stages.common import paths
from stages.sources import cifar
from tests.faults import assert_one_line
from tests.repository import Repository
from tests.sources.servers import NO_NETWORK, FaultyServer, expect_archive, sha256
from tests.sources.test_cifar import cifar10


@pytest.fixture
def project(clone: Repository) -> tuple[Repository, Path]:
    """A clone that prepares CIFAR-10 next, and where it looks for the archive."""
    clone.set_params("dataset=cifar10")
    (clone.path / paths.DOWNLOADS).mkdir()
    return clone, clone.path / paths.DOWNLOADS / cifar.CIFAR10.name


def test_file_in_downloads_needs_no_network(project: tuple[Repository, Path]) -> None:
    clone, file = project
    content, images, labels = cifar10()
    file.write_bytes(content)
    expect_archive(clone, content)
    experiment = clone.check("dvc", "exp", "run", "--temp", "preprocess", **NO_NETWORK)
    assert f"reading {file}" in experiment  # of the repository that the experiment is a copy of
    clone.check("dvc", "repro", "preprocess", **NO_NETWORK)
    for split, rows in {"train": (0, 90), "validation": (90, 100), "test": (100, 120)}.items():
        x, y = (np.load(clone.path / f"data/{split}/{name}.npy") for name in "xy")
        assert np.array_equal(x, images[slice(*rows)])
        assert y.tolist() == labels[slice(*rows)]
    assert file.read_bytes() == content


def test_other_file_in_downloads_ends_dvc_in_one_line(project: tuple[Repository, Path]) -> None:
    clone, file = project
    file.write_bytes(b"another archive")
    result = clone.run("dvc", "repro", "fetch", **NO_NETWORK)
    checksums = f"has {sha256(b'another archive')} instead of {cifar.CIFAR10.known_hash}"
    assert_one_line(result, f"{file}: {checksums}; replace it", status=255)  # DVC's
    assert file.read_bytes() == b"another archive"


def test_download_is_kept_for_the_next_run(project: tuple[Repository, Path]) -> None:
    clone, file = project
    with FaultyServer(b"an archive") as server:
        expect_archive(clone, server.content, server.url)
        for _ in range(2):
            clone.check("dvc", "repro", "--force", "fetch", NO_PROXY="127.0.0.1")
        assert server.requests == [file.name]
        assert file.read_bytes() == server.content
        assert json.loads((clone.path / paths.SOURCE).read_text()) == {
            "dataset": "cifar10",
            "source": f"{server.url}/{file.name}",
            "file": file.name,
            "hash": sha256(server.content),
        }
