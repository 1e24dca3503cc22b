"""The official archives of CIFAR-10 and CIFAR-100, as Python 2 wrote them."""

import io
import itertools
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.sources import cifar
from stages.sources.images import Images
from tests.sources.servers import pack

pytestmark = pytest.mark.filterwarnings("error")


def save_as_python_2(pickler: Any, text: str | bytes) -> None:
    """Write a string or bytes as Python 2 wrote its strings."""
    content = text.encode() if isinstance(text, str) else text
    pickler.write(pickle.BINSTRING + struct.pack("<I", len(content)) + content)
    pickler.memoize(text)


def pickled(content: object) -> bytes:
    """A pickle as in the official archives."""
    file = io.BytesIO()
    pickler: Any = pickle._Pickler(file, protocol=2)
    pickler.dispatch = {**pickler.dispatch, str: save_as_python_2, bytes: save_as_python_2}
    pickler.dump(content)
    return file.getvalue().replace(b"numpy._core", b"numpy.core")  # its name before NumPy 2


def draw(count: int, classes: int, seed: int) -> tuple[np.ndarray, list[int]]:
    """Random images (count, 32, 32, 3) uint8 and their labels."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
    return images, rng.permutation(np.arange(count) % classes).tolist()


def batch(images: np.ndarray, **labels: list[int]) -> bytes:
    """A batch of an archive: rows of red, then green, then blue values."""
    return pickled({"data": images.transpose(0, 3, 1, 2).reshape(len(images), -1), **labels})


def cifar10() -> tuple[bytes, np.ndarray, list[int]]:
    """An archive in CIFAR-10's layout, with six times 20 images; its images and its labels."""
    batches = [draw(20, 10, seed) for seed in range(6)]
    names = ["test_batch", *(f"data_batch_{number}" for number in range(5, 0, -1))]
    files = {"readme.html": b"<meta", "batches.meta": pickled({"label_names": cifar.CLASSES})}
    for name, (images, labels) in zip(names, reversed(batches), strict=True):
        files[name] = batch(images, labels=labels)
    images, labels = (list(itertools.chain(*arrays)) for arrays in zip(*batches, strict=True))
    return pack(files, "cifar-10-batches-py"), np.array(images), labels


def assert_holds(read: Images, images: np.ndarray, labels: list[int]) -> None:
    (only,) = read.batches
    assert np.array_equal(only.images, images)
    assert only.labels.tolist() == labels
    assert only.rows.tolist() == list(range(len(labels)))


def test_archive_of_cifar10_is_read_in_the_order_of_its_batches(tmp_path: Path) -> None:
    content, images, labels = cifar10()
    (tmp_path / "archive").write_bytes(content)
    read = cifar.read(cifar.CIFAR10, tmp_path / "archive")
    assert (read.classes, read.size) == (cifar.CLASSES, 32)
    assert (read.train_count, read.test_count) == (100, 20)
    assert [read.files[row] for row in (0, 99, 100, 119)] == [
        *("train-00000", "train-00099"),
        *("test-00000", "test-00019"),
    ]
    assert_holds(read, images, labels)


def test_archive_of_cifar100_has_a_hundred_fine_classes(tmp_path: Path) -> None:
    (train, train_labels), (test, test_labels) = draw(30, 100, 0), draw(10, 100, 1)
    classes = [f"class {number}" for number in range(100)]
    files = {  # the members of the official archive, of which the first is an editor's
        "file.txt~": b"",
        "train": batch(train, coarse_labels=[0] * 30, fine_labels=train_labels),
        "test": batch(test, coarse_labels=[0] * 10, fine_labels=test_labels),
        "meta": pickled({"fine_label_names": classes, "coarse_label_names": ["animals"]}),
    }
    (tmp_path / "archive").write_bytes(pack(files, "cifar-100-python"))
    read = cifar.read(cifar.CIFAR100, tmp_path / "archive")
    assert (read.classes, read.train_count, read.test_count) == (classes, 30, 10)
    assert_holds(read, np.concatenate([train, test]), train_labels + test_labels)
