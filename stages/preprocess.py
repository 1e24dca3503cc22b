"""Convert the archive to memory-mappable arrays.

Reads data/cifar-10-python.tar.gz. Writes data/{train,validation,test}/, each with `x.npy`,
(N, 32, 32, 3) float32 in [0, 1], and `y.npy`, (N, 10) float32 one-hot labels; and
metrics/provenance/data.json with the archive's origin and the checksums of all arrays. DVC does not
track that file as an output, because equal arrays may come from different archives.
"""

import math
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from stages.common import command_line, params, paths
from stages.common.atomic import atomic_write, write_json
from stages.common.console import print_inputs, print_outputs
from stages.common.errors import StageError, one_line_errors
from stages.common.hashing import sha256
from stages.common.locks import lock_stage
from stages.dataset import splits
from stages.dataset.classes import CLASSES
from stages.sources import archive

Ranges = dict[Path, tuple[int, int]]  # first row and last row + 1 of each split


def split_ranges(images_per_file: int, validation_split: float) -> Ranges:
    """Each split's rows of the archive's images, test images last.

    Validation gets the last part of the training images, rounded as in `Model.fit`.
    """
    total = images_per_file * len(archive.TRAIN_BATCHES)
    train = math.floor(total * (1 - validation_split))
    if not 0 < train < total:
        raise StageError(
            f"params.yaml: validation_split: {validation_split}: leaves training or validation "
            f"empty; of {total} images each needs at least one"
        )
    return {
        paths.TRAIN: (0, train),
        paths.VALIDATION: (train, total),
        paths.TEST: (total, total + images_per_file),
    }


def one_hot(labels: np.ndarray) -> np.ndarray:
    """One-hot labels (N, 10) float32 of integer labels (N,)."""
    vectors: np.ndarray = np.eye(len(CLASSES), dtype=np.float32)[labels]
    return vectors


def write(batches: Iterable[tuple[int, np.ndarray, np.ndarray]], ranges: Ranges) -> None:
    """Write every split, given (first row, images (N, 32, 32, 3) uint8, labels (N,)) in any order.

    Only one batch at a time is in memory.
    """
    with ExitStack() as stack:
        folders = {split: stack.enter_context(atomic_write(split)) for split in ranges}
        for split, (first, last) in ranges.items():
            splits.create(folders[split], last - first)
        for start, images, labels in batches:
            x, y = splits.scale(images), one_hot(labels)
            for split, (first, last) in ranges.items():
                low, high = max(first, start), min(last, start + len(x))
                if low < high:
                    rows = slice(low - start, high - start)
                    splits.write_rows(folders[split], low - first, x[rows], y[rows])


def provenance(folders: Iterable[Path]) -> dict[str, object]:
    """The archive's origin, and the SHA-256 of every array."""
    files = [folder / name for folder in folders for name in splits.ROW_SHAPES]
    checksums = {str(file): sha256(file) for file in files}
    return {**archive.provenance(paths.ARCHIVE), "arrays_sha256": checksums}


@one_line_errors
def main() -> None:
    settings = params.load()
    lock_stage("preprocess")
    print_inputs(paths.ARCHIVE)
    count = settings.images_per_file
    ranges = split_ranges(count, settings.validation_split)
    batches = (
        (archive.BATCHES.index(name) * count, images, labels)
        for name, images, labels in archive.read_batches(paths.ARCHIVE, count)
    )
    write(batches, ranges)
    for split, (first, last) in ranges.items():
        print(f"{split}: x {(last - first, 32, 32, 3)} float32, y {(last - first, 10)} float32")
    write_json(paths.DATA_PROVENANCE, provenance(ranges))
    print_outputs(*ranges)


if __name__ == "__main__":
    command_line.no_arguments("stages.preprocess", __doc__)
    main()
