"""Fetching the ImageNet weights: no network, and local weights."""

import sys
from pathlib import Path

import pytest

from stages.common import paths
from tests.faults import assert_one_line, outputs
from tests.repository import Repository
from tests.sources.servers import NO_NETWORK

FETCH_WEIGHTS = [sys.executable, "-m", "stages.fetch_weights"]


@pytest.fixture
def project(clone: Repository) -> Repository:
    """A clone that fetches ImageNet weights next, in place of random ones."""
    clone.set_params("dataset=cifar10")
    return clone


def test_without_network_fetch_weights_ends_in_one_line_with_remedies(project: Repository) -> None:
    before = outputs(project)
    remedies = "set RESNET50_WEIGHTS=/path/to/weights.h5 or run `make demo`"
    assert_one_line(project.run(*FETCH_WEIGHTS, **NO_NETWORK), remedies)
    assert outputs(project) == before


def test_local_weights_are_used(project: Repository, tmp_path: Path) -> None:
    weights = project.path / paths.IMAGENET_WEIGHTS
    local = tmp_path / "local.weights.h5"
    local.write_bytes(weights.read_bytes())
    weights.unlink()
    project.check(*FETCH_WEIGHTS, RESNET50_WEIGHTS=str(local))
    assert weights.read_bytes() == local.read_bytes()


def test_local_weights_that_are_invalid_or_missing_are_refused(
    project: Repository, tmp_path: Path
) -> None:
    before = outputs(project)
    invalid = tmp_path / "invalid.weights.h5"
    invalid.write_bytes(b"no weights")
    reasons = {str(invalid): "not weights of ResNet50", "/nowhere": "no such file"}
    for path, reason in reasons.items():
        assert_one_line(project.run(*FETCH_WEIGHTS, RESNET50_WEIGHTS=path), reason)
        assert outputs(project) == before
