"""A user's folder: its layouts, the order and the split of its images, and what is refused."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.common.errors import StageError
from stages.common.hashing import sha256
from stages.common.params import FolderParams
from stages.sources import folder, folder_layout, image_files
from tests.sources.test_image_files import damaged_tiff

ROOT = Path("images")
SETTINGS = FolderParams(path="images", image_size=32, test_split=0.2, seed=0, skip_unreadable=False)


@pytest.fixture(autouse=True)
def _work_in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ROOT.mkdir()


def add(*names: str, color: int = 0) -> None:
    """Write small images of one gray level each, from `color` on."""
    for number, name in enumerate(names, start=color):
        (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2), number % 256).save(ROOT / name, format="BMP")


def touch(*names: str) -> None:
    """Write empty files."""
    for name in names:
        (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / name).touch()


def add_classes(*names: str, count: int = 2) -> None:
    for name in names:
        add(*(f"{name}/{number}.bmp" for number in range(count)))


def listing(**changes: object) -> dict[str, Any]:
    return folder_layout.listing(SETTINGS.model_copy(update=changes))


def images(split: str, **changes: object) -> list[str]:
    """The images of a split, class by class."""
    return [name for names in listing(**changes)[split].values() for name in names]


def test_classes_are_the_folders_and_their_subfolders_belong_to_them() -> None:
    add_classes("dog", "Zebra é")
    add("cat/a.JPG", "cat/x/y.jpg/b.png", "cat/.thumbnails/a.bmp", ".git/a.bmp", "cat/.a.bmp")
    for ignored in ("labels.csv", ".DS_Store", "cat/notes.txt", "cat/image", "cat/f.eps"):
        (ROOT / ignored).write_bytes(b"no image")
    found = listing()
    for split in ("train", "test"):
        assert list(found[split]) == ["Zebra é", "cat", "dog"]
        assert [len(names) for names in found[split].values()] == [1, 1, 1]


def test_folders_of_systems_are_neither_classes_nor_in_one() -> None:
    add_classes("cat", "@home", "#1")
    before = listing()
    for name in ("@eaDir", "@eadir", "__MACOSX", "$RECYCLE.BIN", "#recycle", "@Recycle"):
        add(f"{name}/a.bmp", f"cat/{name}/a.jpg/SYNOFILE_THUMB_M.jpg", f"cat/x/{name}/a.bmp")
    for name in ("System Volume Information", "lost+found", "LOST+FOUND"):
        add(f"{name}/a.bmp", f"cat/{name}/a.bmp")
        touch(f"{name}/a.heic")
    assert listing() == before
    assert [*before["train"]] == ["#1", "@home", "cat"]
    assert before["left_out"] == {}


def test_files_without_an_images_suffix_are_counted_by_suffix() -> None:
    add_classes("cat", "dog")
    touch("labels.csv", "cat/a.HEIC", "cat/b.heic", "cat/x/c.heic", "cat/d.jpg?w=640", "cat/e")
    touch("cat/f", "cat/g.\x1b[2J", "cat/h." + 20 * "long")
    touch("cat/Thumbs.db", "cat/desktop.ini", "cat/.hidden", "cat/@eaDir/a.heic")  # not counted
    (ROOT / "cat/link").symlink_to("x")  # to a folder
    counted = {".heic": 3, "": 2, ".?[2j": 1, ".csv": 1, ".jpg?w=640": 1, ".longlonglonglon": 1}
    assert [*listing()["left_out"].items()] == [*counted.items()]


def test_train_and_test_folders_are_splits_and_either_alone_is_a_class() -> None:
    add("train/a/1.bmp", "train/a/2.bmp", "train/b/x/1.bmp", "test/a/1.bmp", "test/b/1.bmp")
    assert sorted(images("train")) == ["train/a/1.bmp", "train/a/2.bmp", "train/b/x/1.bmp"]
    assert images("test") == ["test/a/1.bmp", "test/b/1.bmp"]
    assert list(listing()["train"]) == ["a", "b"]
    shutil.rmtree(ROOT)
    add_classes("boat", "plane", "train")
    assert list(listing()["train"]) == ["boat", "plane", "train"]


def test_share_of_each_class_is_held_out() -> None:
    for name, count in {"hundred": 100, "nine": 9, "two": 2}.items():
        add_classes(name, count=count)
    for share, counts in {0.2: [20, 2, 1], 0.999: [99, 8, 1], 0.001: [1, 1, 1]}.items():
        found = listing(test_split=share)
        assert [len(names) for names in found["test"].values()] == counts
        assert len({*images("train", test_split=share), *images("test", test_split=share)}) == 111


def test_order_depends_on_seed_and_names_alone() -> None:
    add_classes("cat", "dog", count=20)
    before = images("train")
    assert images("train", seed=1) != before
    for number in reversed(range(20)):  # elsewhere, and created in another order
        for name in ("dog", "cat"):
            Path("moved", name).mkdir(parents=True, exist_ok=True)
            (ROOT / f"{name}/{number}.bmp").rename(f"moved/{name}/{number}.bmp")
    assert images("train", path="moved") == before


def test_added_image_moves_at_most_one_other_between_the_splits() -> None:
    add_classes("cat", "dog", count=50)
    before = {*images("test")}
    for number in range(10):
        add(f"cat/new{number}.bmp")
        after = {*images("test")}
        assert len(before - after) <= 1
        before = after


def test_every_part_of_the_images_has_all_classes_in_proportion() -> None:
    counts = {"few": 8, "some": 40, "many": 400}
    _, labels = folder.mix({name: dict.fromkeys(map(str, range(n))) for name, n in counts.items()})
    assert labels.dtype == np.uint16
    assert {*labels[:3]} == {0, 1, 2}
    for length in range(len(labels)):
        expected = np.array([*counts.values()]) * length / len(labels)
        assert np.abs(np.bincount(labels[:length], minlength=3) - expected).max() <= 2
    assert np.bincount(labels[-len(labels) // 10 :]).tolist() == [1, 4, 40]


def test_links_to_images_are_followed_and_links_to_folders_are_not() -> None:
    add_classes("cat", "dog")
    ROOT.rename("elsewhere")
    ROOT.symlink_to("elsewhere")  # the folder itself may be one
    (ROOT / "cat/0.bmp").rename("in DVC's cache")
    (ROOT / "cat/0.bmp").symlink_to(Path("in DVC's cache").absolute())
    (ROOT / "cat/loop").symlink_to("..")
    (ROOT / "cow").symlink_to("cat")
    found = sorted(images("train") + images("test"))
    assert found == ["cat/0.bmp", "cat/1.bmp", "dog/0.bmp", "dog/1.bmp"]
    assert sum(len(batch.images) for batch in folder.read(listing(), SETTINGS).batches) == 4


def test_images_are_read_with_their_labels_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "BATCH_SIZE", 16)
    add_classes("cat", count=60)
    add(*(f"dog/{number}.bmp" for number in range(40)), color=100)
    found = listing()
    source = folder.read(found, SETTINGS)
    batches = list(source.batches)
    rows, images, labels = (np.concatenate(x) for x in list(zip(*batches, strict=True))[:3])
    assert (source.classes, source.train_count, source.test_count) == (["cat", "dog"], 80, 20)
    assert [len(batch.rows) for batch in batches] == [16] * 6 + [4]
    assert rows.tolist() == list(range(100))
    names = [name for split in ("train", "test") for name, _ in folder.mix(found[split])[0]]
    assert source.files == names
    for name, image, label in zip(names, images, labels, strict=True):
        assert np.array_equal(image, image_files.read(ROOT / name, (32, 32)))
        assert name.startswith(source.classes[label])


def test_unreadable_images_are_all_counted_and_the_first_named() -> None:
    add_classes("cat", "dog", count=20)
    (ROOT / "dog/a.jpg").write_bytes(b"no image")
    (ROOT / "dog/b.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(ROOT / "dog/c.jpg")
    found = listing()
    dogs = found["train"]["dog"] | found["test"]["dog"]
    assert dogs["dog/0.bmp"] == sha256(ROOT / "dog/0.bmp")
    assert dogs["dog/b.jpg"] is dogs["dog/c.jpg"] is None
    (ROOT / "dog/9.bmp").unlink()  # vanished after it was listed
    with pytest.raises(StageError) as caught:
        list(folder.read(found, SETTINGS).batches)
    assert str(caught.value) == (
        "error: images: 4 of 43 images are unreadable: images/dog/9.bmp (No such file or "
        "directory), images/dog/a.jpg (Pillow does not know its format), images/dog/b.jpg (No such "
        "file or directory) and 1 more; remove them, or set folder.skip_unreadable: true"
    )


def test_only_our_own_error_names_a_damaged_tiff(capfd: pytest.CaptureFixture[str]) -> None:
    add_classes("cat", "dog")
    damaged_tiff(ROOT / "cat/a.tif")
    with pytest.raises(StageError, match=r"images/cat/a.tif \(decoder error"):
        list(folder.read(listing(), SETTINGS).batches)
    assert capfd.readouterr().err == ""


# What is done to a folder of two classes, cat and dog, and the error.
REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "classes of other files": (
        lambda: touch("cow/a.HEIC", "fox/a.HEIC"),
        r"images/cow, images/fox: no images, but 2 files with other suffixes \(2 .heic\)",
    ),
    "one class": (lambda: shutil.rmtree(ROOT / "cat"), "images: has only one folder, dog, of"),
    "empty class": (lambda: (ROOT / "cow").mkdir(), "images/cow: no images"),
    "class of one image": (lambda: add("cow/1.bmp"), "images/cow: only one image"),
    "no folder": (lambda: shutil.rmtree(ROOT), "images: there is no such folder"),
    "image beside classes": (lambda: add("a.bmp"), "images: images beside the folders.*: a.bmp"),
    "other case": (lambda: add_classes("Cat"), "the classes 'Cat' and 'cat' differ only in case"),
    "other form of é": (lambda: add_classes("e\u0301", "\xe9"), r"'e\\u0301' and '\\xe9' differ"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_unusable_folder_is_refused_in_one_line(change: Callable[[], object], message: str) -> None:
    add_classes("cat", "dog")
    change()
    with pytest.raises(StageError, match=f"^error: .*{message}.*; "):
        listing()


SPLITS = {
    "train/a test/a test/b": "images/train/b: missing",
    "train/a train/b test/a": "images/test/b: missing",
    "train/a test/a val/a": "images: test, train, val look like splits",
    "train/a train/b": "images: train look like splits",
    "Training/a Testing/a": "images: Testing, Training look like splits",
    "train/a test/a extra": "images: test, train look like splits",
    "train test": "images/train: images beside",
    "train/a test/a": "images/train: has only one folder, a,",
}


@pytest.mark.parametrize(("classes", "message"), SPLITS.items())
def test_unusable_splits_are_refused_in_one_line(classes: str, message: str) -> None:
    add_classes(*classes.split())
    with pytest.raises(StageError, match=f"^error: .*{re.escape(message)}.*; "):
        listing()
