"""CIFAR-10 and CIFAR-100: where their files come from, and how each of them is read.

The files are known by their checksums, which select the reader, so the readers check nothing.
"""

import pickle
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from stages.sources import npm
from stages.sources.download import ServerFile, Source
from stages.sources.images import Images, from_arrays

SERVER = "https://www.cs.toronto.edu/~kriz"
CIFAR10 = ServerFile(
    f"{SERVER}/cifar-10-python.tar.gz",
    "sha256:6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
)
CIFAR100 = ServerFile(
    f"{SERVER}/cifar-100-python.tar.gz",
    "sha256:85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
)
SOURCES: dict[str, list[Source]] = {  # by data set; the first available one is used
    "cifar10": [CIFAR10, npm.IMAGES],
    "cifar100": [CIFAR100],
}
TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
# The files in the archives of CIFAR-10 and of CIFAR-100.
TRAIN = [*(f"data_batch_{number}" for number in range(1, 6)), "train"]
TEST, META = ["test_batch", "test"], ["batches.meta", "meta"]
CLASSES = ["airplane", "automobile", "bird", "cat", "deer"]
CLASSES += ["dog", "frog", "horse", "ship", "truck"]


def read(source: Source, file: Path) -> Images:
    """The images of a downloaded file."""
    if source is npm.IMAGES:
        return from_arrays(CLASSES, *npm.read_images(file))
    return read_archive(file)


def read_archive(file: Path) -> Images:
    """The images of an official "python version" archive: a tar of pickled dictionaries.

    Each batch has `data`, (N, 3072) uint8, the red, green and blue planes of an image row by row,
    and a list of N labels; one more file has the class names
    (https://www.cs.toronto.edu/~kriz/cifar.html).
    """
    files: dict[str, dict[bytes, Any]] = {}
    with tarfile.open(file) as tar:
        for member in tar:
            name = PurePosixPath(member.name).name
            if (content := tar.extractfile(member)) and name in (*TRAIN, *TEST, *META):
                # Unpickling runs what the file says: safe for a file with a known checksum.
                files[name] = pickle.load(content, encoding="bytes")
    train, test, (meta,) = (
        [files[name] for name in names if name in files] for names in (TRAIN, TEST, META)
    )
    names = meta.get(b"label_names") or meta[b"fine_label_names"]
    return from_arrays([name.decode() for name in names], stack(train), stack(test))


def stack(batches: list[dict[bytes, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 32, 32, 3) uint8 and labels (N,) integers of several batches."""
    planes = np.concatenate([batch[b"data"] for batch in batches])
    labels = [batch.get(b"labels") or batch[b"fine_labels"] for batch in batches]
    return planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), np.concatenate(labels)
