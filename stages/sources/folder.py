"""The images of a user's folder, read in parallel and in an order in which classes are mixed."""

import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from stages.common import paths
from stages.common.console import first_few, printable
from stages.common.errors import StageError
from stages.common.params import FolderParams
from stages.sources import folder_layout, image_files, local_files
from stages.sources.folder_layout import Classes
from stages.sources.image_source import ImageSource

BATCH_SIZE = 256  # images in memory at once
OUTPUTS = [*local_files.EMPTIED_BY_DVC, paths.ARCHIVES, paths.IMAGENET_WEIGHTS, paths.DOWNLOADS]


def check_path(folder: Path) -> None:
    """Raise `StageError` unless it is a folder, apart from those that the pipeline writes to."""
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "there is no such folder"
        raise StageError(f"{folder}: {problem}; set folder.path in params.yaml to that of images")
    real = folder.resolve()
    for output in (path.resolve() for path in OUTPUTS):
        if real.is_relative_to(output) or output.is_relative_to(real):
            raise StageError(
                f"{folder}: the pipeline writes to it; set folder.path in params.yaml to a folder "
                "that has only your images"
            )


def mix(classes: Classes) -> tuple[list[str], np.ndarray]:
    """The paths of all images, N strings, and their labels (N,), uint16.

    Classes are spread evenly, beginning with one image of each: every leading or trailing part has
    them in the same proportions, to within an image of each.
    """
    files = [image for images in classes.values() for image in images]
    counts = [len(images) for images in classes.values()]
    position = np.concatenate([np.arange(count) / (count - 0.5) for count in counts])
    labels = np.repeat(np.arange(len(counts), dtype=np.uint16), counts)
    order = np.argsort(position, kind="stable")
    return [files[index] for index in order], labels[order]


@dataclass
class Reader:
    """Reads image files at one size; `skipped` gets the rows of those that are unreadable."""

    folder: Path
    files: list[str]
    labels: np.ndarray  # (N,) integers
    size: int  # pixels
    skip_unreadable: bool
    skipped: dict[int, str]

    def __iter__(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield batches as an `ImageSource` does; the image of a skipped row is black.

        Threads, as Pillow decodes and resizes without Python's global lock. Raises `StageError` at
        the end if there are unreadable files that may not be skipped.
        """
        with (
            warnings.catch_warnings(action="ignore"),  # in a thread, it would affect the others
            ThreadPoolExecutor(os.cpu_count()) as pool,
            tqdm(total=len(self.files), unit=" images", disable=None) as progress,
        ):
            for first in range(0, len(self.files), BATCH_SIZE):
                rows = range(first, min(first + BATCH_SIZE, len(self.files)))
                images = np.zeros((len(rows), self.size, self.size, 3), np.uint8)
                for _ in pool.map(self.read, rows, images):
                    progress.update()
                yield first, images, self.labels[first : rows.stop]
        if self.skipped and not self.skip_unreadable:
            raise StageError(
                f"{self.folder}: {len(self.skipped):,} of {len(self.files):,} images are "
                "unreadable: "
                f"{first_few(sorted(self.skipped.values()))}; remove them, or set "
                "folder.skip_unreadable: true"
            )

    def read(self, row: int, pixels: np.ndarray) -> None:
        """Read an image into `pixels`, (size, size, 3) uint8."""
        path = self.files[row]
        try:
            pixels[:] = image_files.read(Path(path), (self.size, self.size))
        except image_files.UnreadableImage as error:
            self.skipped[row] = printable(f"{path} ({error.reason})")


def image_source(settings: FolderParams) -> ImageSource:
    """The images of a folder; raises `StageError` if it cannot be a data set, and `OSError`."""
    folder = Path(settings.path)
    check_path(folder)
    train, test = folder_layout.find(folder, settings.test_split, settings.seed)
    train_files, train_labels = mix(train)
    test_files, test_labels = mix(test)
    skipped: dict[int, str] = {}
    return ImageSource(
        path=folder,
        classes=list(train),
        image_shape=(settings.image_size, settings.image_size, 3),
        train_count=len(train_files),
        test_count=len(test_files),
        dtype=np.dtype(np.uint8),
        batches=Reader(
            folder,
            train_files + test_files,
            np.concatenate([train_labels, test_labels]),
            settings.image_size,
            settings.skip_unreadable,
            skipped,
        ),
        provenance={"folder": settings.path},
        skipped=skipped,
    )
