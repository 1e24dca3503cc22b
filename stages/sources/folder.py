"""The images of a user's folder, read in parallel and in an order in which classes are mixed."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from stages.common.console import first_few, printable, without_stderr
from stages.common.errors import StageError
from stages.common.params import FolderParams
from stages.sources import image_files
from stages.sources.images import Batch, Images

BATCH_SIZE = 256  # images in memory at once

Listed = dict[str, dict[str, str | None]]  # SHA-256 by class and path


def mix(classes: Listed) -> tuple[list[tuple[str, str | None]], np.ndarray]:
    """Path and SHA-256 of all images, N pairs, and their labels (N,), uint16.

    Classes are spread evenly, beginning with one image of each: every leading or trailing part has
    them in the same proportions, to within an image of each.
    """
    files = [image for images in classes.values() for image in images.items()]
    counts = [len(images) for images in classes.values()]
    position = np.concatenate([np.arange(count) / (count - 0.5) for count in counts])
    labels = np.repeat(np.arange(len(counts), dtype=np.uint16), counts)
    order = np.argsort(position, kind="stable")
    return [files[index] for index in order], labels[order]


def read(listing: dict[str, Any], settings: FolderParams) -> Images:
    """The images that the fetch stage has listed."""
    train_files, train_labels = mix(listing["train"])
    test_files, test_labels = mix(listing["test"])
    files, labels = train_files + test_files, np.concatenate([train_labels, test_labels])
    return Images(
        classes=list(listing["train"]),
        files=[printable(path) for path, _ in files],
        size=settings.image_size,
        train_count=len(train_files),
        test_count=len(test_files),
        batches=read_batches(Path(listing["path"]), files, labels, settings),
        left_out=listing["left_out"],
    )


def read_batches(
    folder: Path, files: list[tuple[str, str | None]], labels: np.ndarray, settings: FolderParams
) -> Iterator[Batch]:
    """Yield the images in batches.

    Threads, as Pillow decodes and resizes without Python's global lock. Raises `StageError` for a
    file that has changed since it was listed, and at the end for unreadable files that may not be
    skipped.
    """

    size = settings.image_size, settings.image_size

    def read_file(file: tuple[str, str | None]) -> np.ndarray | str:
        path, checksum = folder / file[0], file[1]
        try:
            return image_files.read(path, size, checksum)
        except image_files.UnreadableImage as error:
            return printable(f"{path} ({error.reason})")

    unreadable: list[str] = []
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(files), unit=" images", disable=None) as progress,
    ):
        for first in range(0, len(files), BATCH_SIZE):
            with without_stderr():  # libtiff prints what is wrong, but not with which file
                results = [*pool.map(read_file, files[first : first + BATCH_SIZE])]
            progress.update(len(results))
            skipped = [result for result in results if isinstance(result, str)]
            unreadable += skipped
            images = [
                (row, result)
                for row, result in enumerate(results, start=first)
                if not isinstance(result, str)
            ]
            rows = np.array([row for row, _ in images], int)
            pixels = np.array([image for _, image in images], np.uint8)
            yield Batch(rows, pixels.reshape(-1, *size, 3), labels[rows], skipped)
    if unreadable and not settings.skip_unreadable:
        raise StageError(
            f"{folder}: {len(unreadable):,} of {len(files):,} images are unreadable: "
            f"{first_few(sorted(unreadable))}; remove them, or set folder.skip_unreadable: true"
        )
