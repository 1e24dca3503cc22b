"""Which images a user's folder has: of which class, and for training or for testing.

There are two layouts, which Keras and torchvision read as well: CLASS/**/IMAGE, from which a share
of each class is held out for testing, or train/CLASS/**/IMAGE and test/CLASS/**/IMAGE. An image is
a file with an image's suffix. Other files are left out and counted. Hidden files and folders, those
that systems and NAS put beside users' files, and links to folders are left out silently.
"""

import hashlib
import os
import unicodedata
from pathlib import Path
from typing import Any

from stages.common.console import first_few
from stages.common.errors import StageError
from stages.common.hashing import sha256
from stages.common.params import FolderParams
from stages.sources import image_files

MIN_CLASSES, MAX_CLASSES = 2, 1000
# Folders with these names are splits, unless there is only one among others: it may be a class.
SPLIT_NAMES = {"train", "training", "test", "testing", "val", "valid", "validation"}

Classes = dict[str, list[Path]]  # each class's images


def class_names(folder: Path) -> list[str]:
    """The names of the subfolders of a folder of classes, or of splits, sorted.

    Raises `StageError` if there are images that belong to none of them.
    """
    names, images = [], []
    for entry in image_files.entries(folder):
        if entry.is_dir(follow_symlinks=False):
            names.append(entry.name)
        elif image_files.has_image_suffix(entry.name):
            images.append(entry.name)
    if images:
        raise StageError(
            f"{folder}: images beside the folders of classes: {first_few(sorted(images))}; move "
            "them into one, or elsewhere"
        )
    return sorted(names)


def check_classes(names: list[str], folder: Path) -> None:
    """Raise `StageError` unless there are 2 to 1,000 classes, whose names can be told apart.

    Unicode has several forms of some characters, which look the same.
    """
    if not MIN_CLASSES <= len(names) <= MAX_CLASSES:
        count = f"only one folder, {names[0]}," if len(names) == 1 else f"{len(names):,} folders"
        raise StageError(
            f"{folder}: has {count} of images, but classes must be {MIN_CLASSES} to "
            f"{MAX_CLASSES:,}; put each class's images into {folder}/CLASS, or set folder.path to "
            "the folder that has its classes as subfolders"
        )
    similar: dict[str, str] = {}
    for name in names:
        if not name.isprintable():
            raise StageError(
                f"{folder}: the class {name!a} has characters that cannot be shown; rename it"
            )
        other = similar.setdefault(unicodedata.normalize("NFC", name.casefold()), name)
        if other != name:
            raise StageError(
                f"{folder}: the classes {other!a} and {name!a} differ only in case or in Unicode's "
                "forms of one character; rename one, or move its images to the other"
            )


def shuffled_images(folder: Path, names: list[str], root: Path, seed: int) -> Classes:
    """The images of each class in random order, which depends on the seed and their names alone.

    Unlike that of a random permutation, it stays as it is when an image is added. Raises
    `StageError` if a class has no images.
    """

    def key(path: Path) -> tuple[bytes, Path]:
        name = os.fsencode(f"{seed}/{path.relative_to(root)}")
        return hashlib.blake2b(name, digest_size=8).digest(), path

    classes = {name: sorted(image_files.find(folder / name), key=key) for name in names}
    empty = [folder / name for name, images in classes.items() if not images]
    if empty:
        raise StageError(f"{image_files.without_images(empty)}, or remove the folder")
    return classes


def hold_out(folder: Path, classes: Classes, share: float) -> tuple[Classes, Classes]:
    """Training and test images, at least one of each class.

    Raises `StageError` if a class has a single image.
    """
    single = [folder / name for name, images in classes.items() if len(images) == 1]
    if single:
        raise StageError(
            f"{first_few(single)}: only one image, but training and testing need one each; add "
            "some, or remove the class"
        )
    train, test = {}, {}
    for name, images in classes.items():
        count = min(max(1, round(len(images) * share)), len(images) - 1)
        train[name], test[name] = images[count:], images[:count]
    return train, test


def find(settings: FolderParams) -> tuple[Classes, Classes]:
    """The training and the test images of a folder; both have all classes, sorted by name.

    Raises `StageError` if the folder has neither layout.
    """
    folder, seed = Path(settings.path), settings.seed
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "there is no such folder"
        remedy = "that of images"
        if settings.path.startswith("~/"):  # DVC, which depends on the folder, does not expand it
            problem = "~ is not expanded"
            remedy = str(Path.home() / settings.path.removeprefix("~").lstrip("/"))
        raise StageError(f"{folder}: {problem}; set folder.path in params.yaml to {remedy}")
    names = class_names(folder)
    splits = [name for name in names if name.lower() in SPLIT_NAMES]
    if not splits or (len(splits) == 1 and len(names) > 1):
        check_classes(names, folder)
        return hold_out(folder, shuffled_images(folder, names, folder, seed), settings.test_split)
    if names != ["test", "train"]:
        raise StageError(
            f"{folder}: {first_few(splits)} look like splits, so there must be train and test, and "
            "no other folder; rename them, or move others elsewhere (validation images are a share "
            "of train)"
        )
    train, test = folder / "train", folder / "test"
    names, test_names = class_names(train), class_names(test)
    missing = [train / name for name in test_names if name not in names]
    missing += [test / name for name in names if name not in test_names]
    if missing:
        raise StageError(
            f"{first_few(missing)}: missing, but a class must be in both train and test; add it "
            "there, or remove it from the other"
        )
    check_classes(names, train)
    return (
        shuffled_images(train, names, folder, seed),
        shuffled_images(test, names, folder, seed),
    )


def listing(settings: FolderParams) -> dict[str, Any]:
    """The folder's images by split and class, each with its SHA-256, or null if it has none.

    Also the number of files that were left out, by suffix.
    """
    folder = Path(settings.path)
    splits = zip(("train", "test"), find(settings), strict=True)
    return {
        "path": settings.path,
        **{
            split: {
                name: {
                    str(path.relative_to(folder)): sha256(path) if path.is_file() else None
                    for path in images
                }
                for name, images in classes.items()
            }
            for split, classes in splits
        },
        "left_out": image_files.count_left_out(folder),
    }
