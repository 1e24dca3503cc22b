"""Convert the images of an archive, or of a user's folder, to memory-mappable arrays.

Reads data/archives/, or the folder that `folder.path` names. Writes data/{train,validation,test}/,
each with `x.npy`, images (N, H, W, 3), and `y.npy`, one-hot labels (N, K), as in
stages/dataset/splits.py; data/description.json with the classes and the number of their images; and
metrics/provenance/data.json with the images' origin and the checksums of all arrays. DVC does not
track that file as an output, because equal arrays may come from different archives.
"""

import hashlib
import math
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from stages.common import command_line, params, paths
from stages.common.atomic import atomic_write, write_json
from stages.common.console import first_few, print_inputs, print_outputs
from stages.common.errors import StageError, one_line_errors
from stages.common.hashing import sha256
from stages.common.locks import lock_stage
from stages.dataset import splits
from stages.dataset.description import Description
from stages.sources import archive, folder
from stages.sources.image_source import ImageSource

PIECE = 1000  # images that are converted at once

Ranges = dict[Path, tuple[int, int]]  # first row and last row + 1 of each split


def open_source(settings: params.Params) -> ImageSource:
    """The images of the data set."""
    if settings.dataset == "folder":
        return folder.image_source(settings.folder)
    return archive.image_source(*archive.of_data_set(settings))


def split_ranges(train_count: int, test_count: int, validation_split: float) -> Ranges:
    """Each split's rows of the images, test images last.

    Validation gets the last part of the training images, rounded as in `Model.fit`.
    """
    train = math.floor(train_count * (1 - validation_split))
    if not 0 < train < train_count:
        raise StageError(
            f"params.yaml: validation_split: {validation_split}: leaves training or validation "
            f"empty; of {train_count} images each needs at least one"
        )
    return {
        paths.TRAIN: (0, train),
        paths.VALIDATION: (train, train_count),
        paths.TEST: (train_count, train_count + test_count),
    }


class Contents:
    """Label and checksum of every image of a source, 10 bytes per image."""

    def __init__(self, source: ImageSource) -> None:
        count = source.train_count + source.test_count
        self.labels = np.zeros(count, np.uint16)
        self.checksums = np.zeros(count, np.uint64)

    def add(self, first: int, images: np.ndarray, labels: np.ndarray) -> None:
        """Add a batch as an `ImageSource` yields it."""
        rows = slice(first, first + len(images))
        self.labels[rows] = labels
        self.checksums[rows] = [
            int.from_bytes(hashlib.blake2b(image.tobytes(), digest_size=8).digest())
            for image in images
        ]

    def describe(self, source: ImageSource, ranges: Ranges) -> Description:
        """The description of a source that was read completely."""
        rows = {
            split: np.setdiff1d(np.arange(first, last), list(source.skipped))
            for split, (first, last) in ranges.items()
        }
        others = np.concatenate([rows[paths.TRAIN], rows[paths.VALIDATION]])
        duplicates = np.isin(self.checksums[rows[paths.TEST]], self.checksums[others])
        return Description(
            classes=source.classes,
            images={
                split.name: np.bincount(self.labels[kept], minlength=len(source.classes)).tolist()
                for split, kept in rows.items()
            },
            duplicates=int(duplicates.sum()),
            skipped=[source.skipped[row] for row in sorted(source.skipped)],
        )


def write(source: ImageSource, ranges: Ranges, folders: dict[Path, Path]) -> Description:
    """Write each split to its folder; only one batch at a time is in memory."""
    contents = Contents(source)
    for split, (first, last) in ranges.items():
        splits.create(
            folders[split], last - first, source.image_shape, len(source.classes), source.dtype
        )
    for start, images, labels in source.batches:
        contents.add(start, images, labels)
        for split, (first, last) in ranges.items():
            low, high = max(first, start), min(last, start + len(images))
            for row in range(low, high, PIECE):
                piece = slice(row - start, min(row + PIECE, high) - start)
                splits.write_rows(folders[split], row - first, images[piece], labels[piece])
    for split, (first, last) in ranges.items():
        removed = [row - first for row in source.skipped if first <= row < last]
        if removed:
            splits.remove_rows(folders[split], np.array(removed))
    return contents.describe(source, ranges)


def check_remaining(description: Description, ranges: Ranges) -> None:
    """Raise `StageError` if a split has no images, or a class none to train with or to test.

    A source has all classes in both, but `validation_split` or unreadable images may leave none.
    """
    for split in ranges:
        counts = zip(description.classes, description.images[split.name], strict=True)
        missing = [name for name, count in counts if count == 0]
        if missing and (split != paths.VALIDATION or len(missing) == len(description.classes)):
            raise StageError(
                f"{split}: has no readable image of {first_few(missing)}; add some, or reduce "
                "validation_split"
            )


def print_description(description: Description) -> None:
    """Print what a reader of the results should know about the images."""
    if description.skipped:
        print(
            f"NOTICE: unreadable images left out: {len(description.skipped):,}: "
            f"{first_few(description.skipped)}"
        )
    if description.duplicates:
        print(
            "NOTICE: test images that are training or validation images as well: "
            f"{description.duplicates:,}; accuracies include what models remember of them"
        )


def provenance(source: ImageSource, folders: Iterable[Path]) -> dict[str, object]:
    """The images' origin, and the SHA-256 of every array."""
    files = [folder / name for folder in folders for name in splits.ARRAYS]
    return {**source.provenance, "arrays_sha256": {str(file): sha256(file) for file in files}}


@one_line_errors
def main() -> None:
    settings = params.load()
    lock_stage("preprocess")
    source = open_source(settings)
    print_inputs(source.path)
    ranges = split_ranges(source.train_count, source.test_count, settings.validation_split)
    with ExitStack() as stack:
        folders = {split: stack.enter_context(atomic_write(split)) for split in ranges}
        description = write(source, ranges, folders)
        check_remaining(description, ranges)
        write_json(paths.DESCRIPTION, description.model_dump())
    for split, counts in zip(ranges, description.images.values(), strict=True):
        print(
            f"{split}: x {(sum(counts), *source.image_shape)} {source.dtype}, "
            f"y {(sum(counts), len(source.classes))} {source.dtype}"
        )
    print_description(description)
    write_json(paths.DATA_PROVENANCE, provenance(source, ranges))
    print_outputs(*ranges, paths.DESCRIPTION)


if __name__ == "__main__":
    command_line.no_arguments("stages.preprocess", __doc__)
    main()
