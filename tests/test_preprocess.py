"""Preparing the arrays: layout and values as in the notebook, and what a folder's images lack."""

import csv
import itertools
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages import fetch, preprocess, settings
from stages.common import paths
from stages.common.errors import StageError
from stages.dataset import description
from stages.sources import generated
from stages.sources.cifar import CLASSES
from tests.repository import ROOT, Repository

SPLITS = ("train", "validation", "test")


def read_files(folder: Path = Path()) -> dict[str, list[dict[str, str]]]:
    """The rows of data/files.csv by split."""
    with (folder / paths.FILES).open(newline="", encoding="utf-8") as file:
        rows = [*csv.DictReader(file)]
    return {split: [row for row in rows if row["split"] == split] for split in SPLITS}


def test_prepared_arrays_match_the_notebook(trained: Repository) -> None:
    (sample,) = generated.generate(images_per_file=40, seed=0).batches
    # Five files of training images, the last 10 % of which validate, and one of test images.
    rows = {"train": slice(0, 180), "validation": slice(180, 200), "test": slice(200, 240)}
    for split, indices in rows.items():
        x, y = (np.load(trained.path / f"data/{split}/{name}.npy") for name in "xy")
        assert (str(x.dtype), str(y.dtype)) == ("uint8", "uint16")
        assert np.array_equal(x, sample.images[indices])
        assert np.array_equal(y, sample.labels[indices])
        files = read_files(trained.path)[split]
        assert [row["class"] for row in files] == [CLASSES[label] for label in y]
        first = 0 if split == "test" else indices.start
        kind = "test" if split == "test" else "train"
        assert [row["file"] for row in files] == [f"{kind}-{first + n:05}" for n in range(len(y))]


def add_images(folder: Path, *names: str, color: int = 0) -> None:
    """Write images of one gray level each, from `color` on."""
    for number, name in enumerate(names, start=color):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), number).save(folder / name)


def test_added_image_reruns_fetch_and_preprocess(clone: Repository) -> None:
    folder = clone.path / "my images"
    add_images(folder, *(f"{name}/{number}.png" for name in ("cat", "dog") for number in range(5)))
    clone.set_params("dataset=folder", "folder.path=my images")
    clone.check("dvc", "repro", "preprocess")
    assert clone.stages_run("repro", "preprocess") == []
    add_images(folder, "dog/new.png", color=200)
    assert clone.stages_run("repro", "preprocess") == ["fetch", "preprocess"]
    labels = [np.load(file) for file in clone.path.glob("data/*/y.npy")]
    assert np.bincount(np.concatenate(labels)).tolist() == [5, 6]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """The working folder: with settings, and 20 images of cats and dogs each in `images`."""
    (tmp_path / "stages").symlink_to(ROOT / "stages")
    for file in (paths.PARAMS, paths.DVC_YAML):
        (tmp_path / file).write_bytes((ROOT / file).read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    for name, color in {"cat": 0, "dog": 100}.items():
        add_images(Path("images"), *(f"{name}/{n}.png" for n in range(20)), color=color)
    repository = Repository(tmp_path)
    repository.set_params("dataset=folder", "folder.path=images")
    return repository


def prepare(change: Callable[[], object] = lambda: None) -> description.Description:
    """Run the stages up to `preprocess`, with a change just before it."""
    settings.main()
    fetch.main()
    change()
    preprocess.main()
    return description.read()


def test_image_that_changes_after_fetch_is_refused(project: Repository) -> None:
    project.set_params("folder.skip_unreadable=true")
    with pytest.raises(StageError, match=r"images/dog/7.png: has changed meanwhile; run `dvc"):
        prepare(lambda: Path("images/dog/7.png").write_bytes(b"no image"))
    assert not paths.TRAIN.exists()


def test_skipped_images_leave_no_row_and_are_listed_beside_the_others(
    project: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    project.set_params("folder.skip_unreadable=true")
    for letter in "abcd":
        Path(f"images/dog/{letter}.jpg").write_bytes(b"no image")
    described = prepare()
    reason = "Pillow does not know its format"
    assert sorted(described.skipped) == [f"images/dog/{letter}.jpg ({reason})" for letter in "abcd"]
    assert "NOTICE: 4 unreadable files were left out: images/dog/" in capsys.readouterr().out
    assert np.sum([*described.images.values()]) == 40
    for split, counts in described.images.items():
        x, y = (np.load(f"data/{split}/{name}.npy") for name in "xy")
        assert np.bincount(y, minlength=2).tolist() == counts
        assert x.shape == (len(y), 64, 64, 3)
        assert ((x[:, 0, 0, 0] >= 100) == y).all()
        for row, label, image in zip(read_files()[split], y, x, strict=True):
            assert row["class"] == ("cat", "dog")[label] == Path(row["file"]).parent.name
            assert image.max() == int(Path(row["file"]).stem) + 100 * label


def test_files_without_an_images_suffix_are_counted_in_the_output_and_the_description(
    project: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare().left_out == {}
    assert "NOTICE" not in capsys.readouterr().out
    for name in ("cat/a.HEIC", "dog/b.heic", "dog/image"):
        Path("images", name).write_bytes(b"no image that Pillow reads")
    assert prepare().left_out == {".heic": 2, "": 1}
    notice = "3 files without an image's suffix are left out: 2 .heic, 1 without a suffix"
    assert capsys.readouterr().out.count(f"NOTICE: {notice}\n") == 1


def test_images_that_occur_twice_are_listed_by_name(
    project: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    for first, (split, name) in enumerate(itertools.product(("train", "test"), ("cat", "dog"))):
        names = [f"{split}/{name}/{n}.png" for n in range(10)]
        add_images(Path("splits"), *names, color=50 * first)
    copies = {
        "test/cat/known.png": "train/cat/3.png",
        "test/dog/relabelled.png": "train/cat/4.png",
        "test/dog/twice.png": "test/dog/5.png",  # in one split and one class: no notice
        "train/dog/relabelled.png": "train/cat/5.png",
    }
    for copied, file in copies.items():
        shutil.copy(f"splits/{file}", f"splits/{copied}")
    project.set_params("folder.path=splits", "validation_split=0.5")
    described = prepare()
    rows = {row["file"]: row for files in read_files().values() for row in files}
    same = {frozenset((name, row["same as"])) for name, row in rows.items() if row["same as"]}
    assert same == {frozenset(pair) for pair in copies.items()}
    assert sorted(described.duplicates) == [
        f"{name} = {copies[name]} ({rows[copies[name]]['split']})" for name in [*copies][:2]
    ]
    in_training, in_test = described.contradictions
    assert in_test == "test/dog/relabelled.png (dog) = train/cat/4.png (cat)"
    assert {*in_training.split(" = ")} == {
        "train/cat/5.png (cat)",
        "train/dog/relabelled.png (dog)",
    }
    output = capsys.readouterr().out
    for notice, files in (
        ("2 of the 23 test images are training or validation images as well", described.duplicates),
        ("2 images are in another class as well", described.contradictions),
    ):
        assert re.search(f"^NOTICE: {notice}: .+ {re.escape(', '.join(files))}$", output, re.M)


def test_class_without_readable_images_changes_no_output(project: Repository) -> None:
    project.set_params("folder.skip_unreadable=true")
    prepare()
    before = {file: file.read_bytes() for file in (paths.TRAIN / "y.npy", paths.DESCRIPTION)}
    for file in Path("images/dog").iterdir():
        file.write_bytes(b"no image")
    with pytest.raises(StageError, match="data/train: has no readable image of dog; add some, or"):
        prepare()
    assert before == {file: file.read_bytes() for file in before}


def test_validation_split_that_leaves_no_image_is_refused(project: Repository) -> None:
    project.set_params("validation_split=0.99")
    with pytest.raises(StageError, match=r"validation_split: 0.99: of "):
        prepare()
