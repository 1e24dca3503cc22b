"""Which images a user's folder has: of which class, and for training or for testing.

There are two layouts, which Keras and torchvision read as well: CLASS/**/IMAGE, from which a share
of each class is held out for testing, or train/CLASS/**/IMAGE and test/CLASS/**/IMAGE. An image is
a file with an image's suffix. Other files, and hidden files and folders, are left out.
"""

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from stages.common.console import first_few
from stages.common.errors import StageError
from stages.sources import image_files

MIN_CLASSES, MAX_CLASSES = 2, 1000
# Folders with these names are splits, unless there is only one among others: it may be a class.
SPLIT_NAMES = {"train", "training", "test", "testing", "val", "valid", "validation"}
DVC_CACHE_FILE = re.compile(r".*/files/md5/[0-9a-f]{2}/[0-9a-f]{30}")

Classes = dict[str, list[str]]  # paths of each class's images; strings need little memory


def list_folder(folder: str) -> tuple[list[str], list[os.DirEntry[str]]]:
    """The names of a folder's subfolders, and its image files, which may be links.

    Raises `StageError` if a subfolder is a link, because DVC does not see what is behind it.
    """
    subfolders, images = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink() and Path(entry.path).is_dir():
                raise StageError(
                    f"{entry.path}: a link to a folder, which DVC does not follow; put the images "
                    "themselves there"
                )
            if entry.is_dir(follow_symlinks=False):
                subfolders.append(entry.name)
            elif image_files.is_image_name(entry.name):
                images.append(entry)
    return sorted(subfolders), images


def find_images(folder: str, root: str) -> Iterator[str]:
    """The paths of the images in a folder and its subfolders, in any order.

    Raises `StageError` for a link that leaves `root`, a real path, unless it leads to DVC's cache,
    as with `cache.type: symlink`.
    """
    subfolders, images = list_folder(folder)
    for image in images:
        if image.is_symlink():
            target = os.path.realpath(image.path)
            if not target.startswith(root + os.sep) and not DVC_CACHE_FILE.fullmatch(target):
                raise StageError(
                    f"{image.path}: a link that leaves the folder; put the image itself there"
                )
        yield image.path
    for name in subfolders:
        if not name.startswith("."):
            yield from find_images(f"{folder}/{name}", root)


def list_classes(folder: Path, root: str) -> list[str]:
    """The names of the subfolders of a folder of classes, or of splits, sorted.

    Raises `StageError` if there are images that belong to none of them.
    """
    names, images = list_folder(str(folder))
    if images:
        raise StageError(
            f"{folder}: images beside the folders of classes: "
            f"{first_few(sorted(image.name for image in images))}; move them into one, or elsewhere"
        )
    hidden = [name for name in names if name.startswith(".")]
    for name in hidden:
        if any(find_images(f"{folder}/{name}", root)):
            raise StageError(
                f"{folder / name}: has images, but is hidden, as its name begins with a dot; "
                "rename it, or move it elsewhere"
            )
    return [name for name in names if name not in hidden]


def check_names(names: list[str], folder: Path) -> None:
    """Raise `StageError` for class names that cannot be shown, or that look the same."""
    similar: dict[str, str] = {}
    for name in names:
        if not name.isprintable():
            raise StageError(
                f"{folder / name}: {name!a} has characters that cannot be printed; rename the "
                "folder"
            )
        other = similar.setdefault(unicodedata.normalize("NFC", name.casefold()), name)
        if other != name:
            raise StageError(
                f"{folder}: the classes {other!a} and {name!a} differ only in case or in Unicode's "
                "forms of one character; rename one, or move its images to the other"
            )


def check_count(names: list[str], folder: Path) -> None:
    """Raise `StageError` unless there are 2 to 1,000 classes."""
    if not MIN_CLASSES <= len(names) <= MAX_CLASSES:
        count = f"only one folder, {names[0]}," if len(names) == 1 else f"{len(names):,} folders"
        raise StageError(
            f"{folder}: has {count} of images, but classes must be {MIN_CLASSES} to "
            f"{MAX_CLASSES:,}; put each class's images into {folder}/CLASS, or set folder.path to "
            "the folder that has its classes as subfolders"
        )


def shuffle(folder: Path, names: list[str], root: str, seed: int) -> Classes:
    """The images of each class in random order, which depends on the seed and their names alone.

    Unlike that of a random permutation, it stays as it is when an image is added. Raises
    `StageError` if a class has no images.
    """
    start = len(f"{folder}/")

    def key(path: str) -> tuple[bytes, str]:
        name = os.fsencode(f"{seed}/{path[start:]}")
        return hashlib.blake2b(name, digest_size=8).digest(), path

    classes = {name: sorted(find_images(str(folder / name), root), key=key) for name in names}
    empty = [folder / name for name, images in classes.items() if not images]
    if empty:
        raise StageError(
            f"{first_few(empty)}: no images in a class's folder; add some, with a suffix such as "
            ".jpg, or remove it"
        )
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


def find(folder: Path, test_split: float, seed: int) -> tuple[Classes, Classes]:
    """The training and the test images of a folder; both have all classes, sorted by name.

    Raises `StageError` if the folder has neither layout, and `OSError`.
    """
    root = os.path.realpath(folder)
    names = list_classes(folder, root)
    splits = [name for name in names if name.lower() in SPLIT_NAMES]
    if not splits or (len(splits) == 1 and len(names) > 1):
        check_names(names, folder)
        check_count(names, folder)
        return hold_out(folder, shuffle(folder, names, root, seed), test_split)
    if names != ["test", "train"]:
        raise StageError(
            f"{folder}: {first_few(splits)} look like splits, so there must be train and test, and "
            "no other folder; rename them, or move others elsewhere (validation images are a share "
            "of train)"
        )
    train, test = folder / "train", folder / "test"
    names, test_names = list_classes(train, root), list_classes(test, root)
    check_names(sorted({*names, *test_names}), folder)
    missing = [train / name for name in test_names if name not in names]
    missing += [test / name for name in names if name not in test_names]
    if missing:
        raise StageError(
            f"{first_few(missing)}: missing, but a class must be in both train and test; add it "
            "there, or remove it from the other"
        )
    check_count(names, train)
    return shuffle(train, names, root, seed), shuffle(test, names, root, seed)
