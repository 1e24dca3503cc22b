"""A user's folder: its layouts, the order and the split of its images, and what is refused."""

import os
import random
import re
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages import preprocess
from stages.common import paths
from stages.common.errors import StageError
from stages.common.params import FolderParams
from stages.dataset import description
from stages.sources import folder, image_files
from tests.repository import ROOT

ROOT_FOLDER = Path("images")
SETTINGS = FolderParams(
    path=str(ROOT_FOLDER), image_size=32, test_split=0.2, seed=0, skip_unreadable=False
)


@pytest.fixture(autouse=True)
def _work_in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ROOT_FOLDER.mkdir()


def add(*names: str, color: int = 0) -> None:
    """Write small images of one gray level each, from `color` on."""
    for number, name in enumerate(names, start=color):
        path = ROOT_FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2), number % 256).save(path, format="BMP")


def add_class(name: str, count: int, color: int = 0) -> None:
    add(*(f"{name}/{number}.bmp" for number in range(count)), color=color)


def files(**changes: object) -> tuple[list[str], list[str]]:
    """The training and the test images in their order, as paths relative to the folder."""
    source = folder.image_source(SETTINGS.model_copy(update=changes))
    assert isinstance(source.batches, folder.Reader)
    names = [str(Path(path).relative_to(ROOT_FOLDER)) for path in source.batches.files]
    labels = [source.classes[label] for label in source.batches.labels]
    for name, label in zip(names, labels, strict=True):
        assert label in Path(name).parts[:2]
    return names[: source.train_count], names[source.train_count :]


def class_counts(names: list[str]) -> Counter[str]:
    """How many images of each class there are."""
    return Counter(name.split("/")[0] for name in names)


def refused() -> str:
    """The one line in which reading the folder ends."""
    with pytest.raises((StageError, OSError)) as caught:
        list(folder.image_source(SETTINGS).batches)
    assert isinstance(caught.value, StageError), caught.value
    assert "\n" not in str(caught.value)
    assert "; " in str(caught.value)
    return str(caught.value)


def test_classes_are_the_folders_and_their_subfolders_belong_to_them() -> None:
    add(
        "dog/a.bmp", "dog/b.bmp", "cat/a.JPG", "cat/x/y.jpg/b.png", "Zebra é/a.bmp", "Zebra é/b.bmp"
    )
    for ignored in ("labels.csv", ".DS_Store", "cat/notes.txt", "cat/image", "cat/.a.bmp"):
        (ROOT_FOLDER / ignored).write_bytes(b"no image")
    for hidden in (".git/objects", "cat/.thumbnails"):
        (ROOT_FOLDER / hidden).mkdir(parents=True)
    add("cat/.thumbnails/a.bmp")
    source = folder.image_source(SETTINGS)
    assert source.classes == ["Zebra é", "cat", "dog"]
    train, test = files()
    assert class_counts(train) == class_counts(test) == {"Zebra é": 1, "cat": 1, "dog": 1}


def test_train_and_test_folders_are_used_as_they_are() -> None:
    add("train/a/1.bmp", "train/a/2.bmp", "train/b/x/1.bmp", "test/a/1.bmp", "test/b/1.bmp")
    train, test = files()
    assert sorted(train) == ["train/a/1.bmp", "train/a/2.bmp", "train/b/x/1.bmp"]
    assert sorted(test) == ["test/a/1.bmp", "test/b/1.bmp"]
    assert folder.image_source(SETTINGS).classes == ["a", "b"]


def test_class_may_be_called_train() -> None:
    for name in ("boat", "plane", "train"):
        add_class(name, 2)
    add("train/steam/3.bmp")
    assert folder.image_source(SETTINGS).classes == ["boat", "plane", "train"]


def test_share_of_each_class_is_held_out() -> None:
    counts = {"two": 2, "nine": 9, "hundred": 100}
    for name, count in counts.items():
        add_class(name, count)
    train, test = files()
    assert class_counts(test) == {"two": 1, "nine": 2, "hundred": 20}
    assert class_counts(train) == {"two": 1, "nine": 7, "hundred": 80}
    assert len({*train, *test}) == 111
    assert class_counts(files(test_split=0.999)[0]) == {"two": 1, "nine": 1, "hundred": 1}
    assert class_counts(files(test_split=0.001)[1]) == {"two": 1, "nine": 1, "hundred": 1}


def test_order_depends_on_seed_and_names_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    add_class("cat", 30)
    add_class("dog", 20)
    before = files()
    assert files(seed=1) != before
    ROOT_FOLDER.rename("moved")
    monkeypatch.setattr(f"{__name__}.ROOT_FOLDER", Path("moved"))
    scandir = os.scandir

    class Shuffled:
        """The entries of a folder as another file system might list them."""

        def __init__(self, path: str) -> None:
            with scandir(path) as entries:
                self.entries = list(entries)
            random.shuffle(self.entries)

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self.entries

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(os, "scandir", Shuffled)
    assert files(path="moved") == before


def test_added_image_moves_at_most_one_other_between_the_splits() -> None:
    add_class("cat", 50)
    add_class("dog", 50)
    _, before = files()
    for number in range(10):
        add(f"cat/new{number}.bmp")
        _, test = files()
        assert len({*before} - {*test}) <= 1
        before = test


def test_every_part_of_the_images_has_all_classes_in_proportion() -> None:
    counts = {"few": 8, "some": 40, "many": 400}
    for name, count in counts.items():
        add_class(f"train/{name}", count)
        add_class(f"test/{name}", 1)
    train, _ = files()
    names = [path.split("/")[1] for path in train]
    assert {*names[:3]} == {*counts}
    for last in range(len(names)):
        for name, count in counts.items():
            assert abs(names[:last].count(name) - count * last / len(names)) <= 2
    assert Counter(names[-len(names) // 10 :]) == {"few": 1, "some": 4, "many": 40}


def test_links_within_the_folder_and_to_dvcs_cache_are_read() -> None:
    add_classes("cat", "dog")
    cached = Path("cache/files/md5/01/23456789abcdef0123456789abcdef")
    cached.parent.mkdir(parents=True)
    (ROOT_FOLDER / "cat/0.bmp").rename(cached)
    link("cat/0.bmp", cached.absolute())
    link("dog/2.bmp", "1.bmp")
    assert sum(len(images) for _, images, _ in folder.image_source(SETTINGS).batches) == 5


def test_folder_itself_may_be_a_link() -> None:
    add_classes("cat", "dog")
    ROOT_FOLDER.rename("elsewhere")
    ROOT_FOLDER.symlink_to("elsewhere")
    assert folder.image_source(SETTINGS).train_count == 2


@pytest.mark.parametrize("path", ["data", "data/train", ".", "/", "models/x", "metrics"])
def test_folder_that_the_pipeline_writes_to_is_refused(path: str) -> None:
    Path(path).mkdir(parents=True, exist_ok=True)
    with pytest.raises(StageError, match="the pipeline writes to it"):
        folder.image_source(SETTINGS.model_copy(update={"path": path}))


@pytest.mark.parametrize(
    ("path", "message"), [("x", "there is no such folder"), ("x.txt", "is not a folder")]
)
def test_missing_folder_is_named(path: str, message: str) -> None:
    Path("x.txt").touch()
    with pytest.raises(StageError, match=rf"{path}: {message}; set folder.path"):
        folder.image_source(SETTINGS.model_copy(update={"path": path}))


def test_images_are_read_as_predict_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """In several batches, by several threads."""
    monkeypatch.setattr(folder, "BATCH_SIZE", 16)
    add_class("cat", 60)
    add_class("dog", 40, color=100)
    source = folder.image_source(SETTINGS)
    assert isinstance(source.batches, folder.Reader)
    threads, read = set(), image_files.read

    def noted(path: Path, size: tuple[int, int]) -> np.ndarray:
        threads.add(threading.get_ident())
        return read(path, size)

    monkeypatch.setattr(image_files, "read", noted)
    rows = 0
    for first, images, labels in source.batches:
        assert first == rows
        assert images.dtype == np.uint8
        for pixels, label, path in zip(
            images, labels, source.batches.files[first : first + 16], strict=True
        ):
            assert np.array_equal(pixels, read(Path(path), (32, 32)))
            assert pixels[0, 0, 0] >= 100 * label
            rows += 1
    assert rows == 100
    assert threading.get_ident() not in threads
    assert folder.image_source(SETTINGS).dtype == np.uint8


def damage() -> None:
    """Add a good class and one in which the four last of 24 files cannot be read."""
    add_class("cat", 24)
    add_class("dog", 20)
    (ROOT_FOLDER / "dog/a.jpg").write_bytes(b"no image")
    (ROOT_FOLDER / "dog/b.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(ROOT_FOLDER / "dog/c.jpg")
    Image.new("RGB", (30_000, 1)).save(ROOT_FOLDER / "dog/d.jpg", "PNG")


def test_unreadable_images_are_all_counted_and_the_first_named() -> None:
    damage()
    message = refused()
    assert message.startswith("error: images: 4 of 48 images are unreadable: images/dog/a.jpg (Pil")
    assert "images/dog/b.jpg (No such file or directory)" in message
    assert "images/dog/c.jpg (it is not a file) and 1 more; remove them, or set " in message
    assert message.endswith("folder.skip_unreadable: true")


def test_vanished_image_is_an_unreadable_one() -> None:
    add_class("cat", 5)
    add_class("dog", 5)
    source = folder.image_source(SETTINGS)
    (ROOT_FOLDER / "dog/3.bmp").unlink()
    with pytest.raises(StageError, match=r"1 of 10 .*: images/dog/3.bmp \(No such file"):
        list(source.batches)


def use_folder(skip_unreadable: bool) -> None:
    """Let the preprocess stage, started here, read the folder."""
    text = (ROOT / "params.yaml").read_text()
    text = text.replace("path: data/images", f"path: {ROOT_FOLDER}")
    text = text.replace("skip_unreadable: false", f"skip_unreadable: {skip_unreadable}".lower())
    lines = [
        "dataset: folder" if line.startswith("dataset:") else line for line in text.split("\n")
    ]
    paths.PARAMS.write_text("\n".join(lines))
    paths.ARCHITECTURES.parent.mkdir(exist_ok=True)
    if not paths.ARCHITECTURES.exists():
        paths.ARCHITECTURES.symlink_to(ROOT / paths.ARCHITECTURES)


def test_skipped_images_leave_no_row_and_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    damage()
    use_folder(skip_unreadable=True)
    preprocess.main()
    result = description.read()
    assert [name.split(" ")[0] for name in sorted(result.skipped)] == [
        f"images/dog/{letter}.jpg" for letter in "abcd"
    ]
    assert "it has 30000 x 1 pixels" in max(result.skipped)
    assert "unreadable images left out: 4: images/dog/" in capsys.readouterr().out
    assert sum(map(sum, result.images.values())) == 44
    for split in ("train", "validation", "test"):
        x, y = (np.load(Path("data", split, f"{name}.npy")) for name in "xy")
        assert y.sum(axis=0).tolist() == result.images[split]
        assert len(x) == len(y)


def test_duplicates_of_test_images_are_counted_and_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    add_class("cat", 20)
    add_class("dog", 20, color=100)
    use_folder(skip_unreadable=False)
    preprocess.main()
    assert description.read().duplicates == 0
    _, test = files(image_size=64)
    for name in test[:3]:
        add(f"cat/copy of {name.replace('/', ' ')}")
        (ROOT_FOLDER / f"cat/copy of {name.replace('/', ' ')}").write_bytes(
            (ROOT_FOLDER / name).read_bytes()
        )
    _, test = files(image_size=64)
    content = {name: (ROOT_FOLDER / name).read_bytes() for name in [*files()[0], *test]}
    expected = sum(content[name] in [content[other] for other in files()[0]] for name in test)
    assert expected > 0
    capsys.readouterr()
    preprocess.main()
    assert description.read().duplicates == expected
    assert f"validation images as well: {expected};" in capsys.readouterr().out


@pytest.mark.parametrize("skip_unreadable", [False, True])
def test_refused_folder_leaves_earlier_outputs(skip_unreadable: bool) -> None:
    """With all images of a class unreadable, both settings end in one line."""
    add_class("cat", 10)
    add_class("dog", 10)
    use_folder(skip_unreadable)
    preprocess.main()
    outputs = {path: path.read_bytes() for path in Path("data").rglob("*") if path.is_file()}
    for file in ROOT_FOLDER.glob("dog/*"):
        file.write_bytes(b"no image")
    message = "data/train: has no readable image of dog" if skip_unreadable else "10 of 20 images"
    with pytest.raises(StageError, match=message):
        preprocess.main()
    assert outputs == {
        path: path.read_bytes() for path in Path("data").rglob("*") if path.is_file()
    }


def link(name: str, target: str | Path) -> None:
    (ROOT_FOLDER / name).symlink_to(target)


def write_text(name: str) -> None:
    path = ROOT_FOLDER / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("text")


def remove(*names: str) -> None:
    for name in names:
        shutil.rmtree(ROOT_FOLDER / name)


def add_classes(*names: str) -> None:
    for name in names:
        add_class(name, 2)


def save_strip(name: str) -> None:
    Image.new("L", (1, 30_000)).save(ROOT_FOLDER / name)


# What is done to a folder of two classes, cat and dog, and the error.
REFUSED: dict[str, tuple[Callable[[], None], str]] = {
    "no class": (lambda: remove("cat", "dog"), "images: has 0 folders of images"),
    "one class": (lambda: remove("cat"), "images: has only one folder, dog,.*set folder.path"),
    "empty class": ((ROOT_FOLDER / "cow").mkdir, "images/cow: no images"),
    "class of other files": (lambda: write_text("cow/a.txt"), "images/cow: no images"),
    "class of one image": (lambda: add("cow/1.bmp"), "images/cow: only one image"),
    "too many classes": (
        lambda: add_classes(*map(str, range(999))),
        "images: has 1,001 folders of images, but classes must be 2 to 1,000",
    ),
    "image beside classes": (lambda: add("a.bmp"), "images: images beside the folders.*: a.bmp"),
    "line break": (lambda: add_classes("a\nb"), r"images/a b: 'a\\nb' has characters"),
    "control character": (lambda: add_classes("a\x1bb"), r"images/a\?b: 'a\\x1bb' has characters"),
    "not UTF-8": (
        lambda: add_classes(os.fsdecode(b"\xff")),
        r"images/\?: '\\udcff' has characters",
    ),
    "leading dot": (lambda: add_classes(".cow"), "images/.cow: has images, but is hidden"),
    "other case": (lambda: add_classes("Cat"), "the classes 'Cat' and 'cat' differ only in case"),
    "other normalization": (
        lambda: add_classes("e\u0301", "\xe9"),
        r"the classes 'e\\u0301' and '\\xe9' differ only",
    ),
    "link to a folder outside": (lambda: link("cat/out", "/etc"), "images/cat/out: a link to a f"),
    "loop": (lambda: link("cat/loop", ".."), "images/cat/loop: a link to a folder"),
    "class that is a link": (lambda: link("cow", "cat"), "images/cow: a link to a folder"),
    "link to a file outside": (
        lambda: link("cat/x.bmp", ROOT / "README.md"),
        "images/cat/x.bmp: a link that leaves the folder",
    ),
    "link to itself": (lambda: link("cat/x.bmp", "x.bmp"), r"images/cat/x.bmp \(.*symbolic links"),
    "no image": (lambda: write_text("cat/x.bmp"), r"images/cat/x.bmp \(Pillow does not know its"),
    "strip": (lambda: save_strip("cat/x.bmp"), r"images/cat/x.bmp \(it has 1 x 30000 pixels"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_unusable_folder_is_refused_in_one_line(change: Callable[[], None], message: str) -> None:
    add_class("cat", 2)
    add_class("dog", 2)
    change()
    assert re.search(message, refused())


SPLITS = {
    "class only in test": (["train/a", "test/a", "test/b"], "images/train/b: missing"),
    "class only in train": (["train/a", "train/b", "test/a"], "images/test/b: missing"),
    "validation folder": (["train/a", "test/a", "val/a"], "test, train, val look like splits"),
    "no test folder": (["train/a", "train/b"], "train look like splits"),
    "no test but validation": (["train/a", "valid/a"], "train, valid look like splits"),
    "other names": (["Training/a", "Testing/a"], "Testing, Training look like splits"),
    "other folders": (["train/a", "test/a", "extra"], "test, train look like splits"),
    "images without a class": (["train", "test"], "images/train: images beside"),
    "one class": (["train/a", "test/a"], "images/train: has only one folder, a,"),
    "other case": (["train/a", "train/b", "test/A", "test/b"], "'A' and 'a' differ only in case"),
}


@pytest.mark.parametrize(("classes", "message"), SPLITS.values(), ids=SPLITS.keys())
def test_unusable_splits_are_refused_in_one_line(classes: list[str], message: str) -> None:
    for name in classes:
        add_class(name, 2)
    assert message in refused()
