"""Turn the archive into arrays that later stages memory-map.

Reads data/cifar-10-python.tar.gz. Writes data/{train,validation,test}/, each with `x.npy`,
(N, 32, 32, 3) float32 in [0, 1], and `y.npy`, (N, 10) float32 one-hot labels.
"""

import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from stages.support import archive, arrays, params, paths
from stages.support.errors import StageError, one_line_errors
from stages.support.files import only_one, replacing


def splits(pictures_per_batch: int, validation_split: float) -> dict[Path, tuple[int, int]]:
    """Each split's first and last row + 1 of the archive's pictures, test pictures last.

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


def prepared(path: Path, pictures: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Give (first row, x (N, 32, 32, 3) float32 in [0, 1], y (N, 10) float32) batch by batch."""
    one_hot = np.eye(len(archive.CLASSES), dtype=np.float32)
    for name, images, labels in archive.read_batches(path, pictures):
        first = archive.BATCHES.index(name) * pictures
        yield first, images.astype(np.float32) / 255, one_hot[labels]


@one_line_errors
def main() -> None:
    settings = params.load()
    only_one("preprocess")
    pictures = settings.pictures_per_batch
    ranges = splits(pictures, settings.validation_split)
    with ExitStack() as stack:
        folders = {split: stack.enter_context(replacing(split)) for split in ranges}
        for split, (first, last) in ranges.items():
            arrays.create(folders[split], last - first)
        for start, x, y in prepared(paths.ARCHIVE, pictures):
            for split, (first, last) in ranges.items():
                low, high = max(first, start), min(last, start + pictures)
                if low < high:
                    rows = slice(low - start, high - start)
                    arrays.write_rows(folders[split], low - first, x[rows], y[rows])
    for split, (first, last) in ranges.items():
        print(
            f"wrote {split}: x {(last - first, 32, 32, 3)} float32, y {(last - first, 10)} float32"
        )


if __name__ == "__main__":
    main()
