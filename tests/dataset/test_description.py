"""The description of the prepared images: damage ends in one line with the remedy."""

import json
from pathlib import Path

import pytest

from stages.common import paths
from stages.common.errors import StageError
from stages.dataset import description

VALID = {
    "classes": ["cat", "dog"],
    "images": {"train": [8, 9], "validation": [1, 1], "test": [2, 3]},
    "duplicates": 0,
    "skipped": [],
}


def test_numbers_of_images_must_fit_splits_and_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paths.DESCRIPTION.parent.mkdir()
    paths.DESCRIPTION.write_text(json.dumps(VALID))
    assert description.read().images["test"] == [2, 3]
    for images in (
        {},
        {"train": [8, 9], "test": [2, 3]},
        {"train": [8, 9], "validation": [1, 1], "test": [2]},
        {"train": [8, 9], "validation": [1, 1], "test": [2, 3], "more": [1, 1]},
        {"train": [8, 9], "validation": [1, 1], "test": [2, -3]},
    ):
        paths.DESCRIPTION.write_text(json.dumps({**VALID, "images": images}))
        with pytest.raises(StageError, match="run `dvc repro --force preprocess`"):
            description.read()
