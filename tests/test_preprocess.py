"""Preparing the arrays: layout and values as in the notebook, and their provenance."""

import json
from dataclasses import replace

import numpy as np
from PIL import Image

from stages.common import paths
from stages.common.hashing import sha256
from stages.sources import archive
from tests.repository import SAMPLE_ARCHIVE, Repository

# Of the trained repository.
LAYOUT = replace(archive.CIFAR10, batches=dict.fromkeys(archive.CIFAR10.batches, 40))


def test_prepared_arrays_match_the_notebook(trained: Repository) -> None:
    batches = {
        name: (images, labels)
        for name, images, labels in archive.read_batches(trained.path / SAMPLE_ARCHIVE, LAYOUT)
    }
    images, labels = (
        np.concatenate([batches[name][part] for name in archive.CIFAR10.batches]) for part in (0, 1)
    )
    # Five batches of training images, the last 10 % of which validate, and one of test images.
    rows = {"train": slice(0, 180), "validation": slice(180, 200), "test": slice(200, 240)}
    for split, indices in rows.items():
        x, y = (np.load(trained.path / f"data/{split}/{name}.npy") for name in "xy")
        count = indices.stop - indices.start
        assert x.shape == (count, 32, 32, 3)
        assert y.shape == (count, 10)
        assert x.dtype == y.dtype == np.float32
        assert x.min() >= 0
        assert 0.5 < x.max() <= 1
        assert np.array_equal(x, np.float32(images[indices]) / 255)
        assert set(np.unique(y)) == {0, 1}
        assert (y.sum(axis=1) == 1).all()
        assert np.array_equal(y.argmax(axis=1), labels[indices])


def test_provenance_has_origin_of_archive_and_checksums_of_arrays(trained: Repository) -> None:
    arrays = [f"data/{split}/{x}.npy" for split in ("train", "validation", "test") for x in "xy"]
    assert json.loads((trained.path / paths.DATA_PROVENANCE).read_text()) == {
        "archive": "generated sample",
        "archive_sha256": sha256(trained.path / SAMPLE_ARCHIVE),
        "arrays_sha256": trained.digests(arrays),
    }


def test_added_image_reruns_preprocess(clone: Repository) -> None:
    images = clone.path / "my images"
    for name in ("cat", "dog"):
        (images / name).mkdir(parents=True)
        for number in range(5):
            Image.new("L", (8, 8), 10 * number).save(images / name / f"{number}.png")
    clone.set_params("dataset=folder", "folder.path=my images")
    clone.check("dvc", "repro", "preprocess")
    assert clone.run("dvc", "status", "preprocess").stdout.startswith("Data and pipelines are up")
    Image.new("L", (8, 8), 200).save(images / "dog" / "new.png")
    assert clone.stages_run("repro", "preprocess") == ["preprocess"]
    counts = json.loads((clone.path / paths.DESCRIPTION).read_text())["images"]
    assert [sum(rows) for rows in zip(*counts.values(), strict=True)] == [5, 6]
