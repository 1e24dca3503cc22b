"""Turn the archive into arrays that later stages memory-map.

Reads data/cifar-10-python.tar.gz. Writes data/{train,validation,test}/, each with `x.npy`,
(N, 32, 32, 3) float32 in [0, 1], and `y.npy`, (N, 10) float32 one-hot labels; and
metrics/provenance/data.json, which says where the archive comes from and has the checksums of all
arrays. That is no output of the stage, since equal arrays may come from different archives.
"""

import math
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from stages.support import archive, arrays, params, paths
from stages.support.errors import StageError, one_line_errors
from stages.support.files import (
    only_one,
    replacing,
    say_reading,
    say_wrote,
    sha256,
    write_json,
)

Ranges = dict[Path, tuple[int, int]]  # each split's first row and last row + 1


def splits(pictures_per_batch: int, validation_split: float) -> Ranges:
    """Each split's rows of the archive's pictures, test pictures last.

    Validation gets the last part of the training pictures, rounded as `Model.fit` rounds it.
    """
    total = pictures_per_batch * len(archive.TRAIN_BATCHES)
    train = math.floor(total * (1 - validation_split))
    if not 0 < train < total:
        raise StageError(
            f"params.yaml: validation_split: {validation_split}: leaves training or validation "
            f"empty; of {total} pictures each needs at least one"
        )
    test_end = total + pictures_per_batch
    return {
        paths.TRAIN: (0, train),
        paths.VALIDATION: (train, total),
        paths.TEST: (total, test_end),
    }


def prepare(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x (N, 32, 32, 3) float32 in [0, 1] and one-hot y (N, 10) float32 of uint8 pictures."""
    one_hot = np.eye(len(archive.CLASSES), dtype=np.float32)
    return images.astype(np.float32) / 255, one_hot[labels]


def write(batches: Iterable[tuple[int, np.ndarray, np.ndarray]], ranges: Ranges) -> None:
    """Write every split, given (first row, images (N, 32, 32, 3) uint8, labels (N,)) in any order.

    One batch at a time is in memory.
    """
    with ExitStack() as stack:
        folders = {split: stack.enter_context(replacing(split)) for split in ranges}
        for split, (first, last) in ranges.items():
            arrays.create(folders[split], last - first)
        for start, images, labels in batches:
            x, y = prepare(images, labels)
            for split, (first, last) in ranges.items():
                low, high = max(first, start), min(last, start + len(x))
                if low < high:
                    rows = slice(low - start, high - start)
                    arrays.write_rows(folders[split], low - first, x[rows], y[rows])


def provenance(splits: Iterable[Path]) -> dict[str, object]:
    """Where the prepared images come from, and the SHA-256 of every array."""
    files = [split / name for split in splits for name in arrays.ROW_SHAPES]
    checksums = {str(file): sha256(file) for file in files}
    return {**archive.provenance(paths.ARCHIVE), "arrays_sha256": checksums}


@one_line_errors
def main() -> None:
    settings = params.load()
    only_one("preprocess")
    say_reading(paths.ARCHIVE)
    pictures = settings.pictures_per_batch
    ranges = splits(pictures, settings.validation_split)
    write(
        (
            (archive.BATCHES.index(name) * pictures, images, labels)
            for name, images, labels in archive.read_batches(paths.ARCHIVE, pictures)
        ),
        ranges,
    )
    for split, (first, last) in ranges.items():
        print(f"{split}: x {(last - first, 32, 32, 3)} float32, y {(last - first, 10)} float32")
    write_json(paths.DATA_PROVENANCE, provenance(ranges))
    say_wrote(*ranges)


if __name__ == "__main__":
    main()
