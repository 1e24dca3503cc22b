"""The order of training images and their augmentation."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from stages.dataset.augmentation import flip_and_shift
from stages.dataset.batch_loader import BatchLoader
from stages.dataset.splits import Split, create, keep_for_validation, write_rows

COUNT = 60


@pytest.fixture
def split(tmp_path: Path) -> Split:
    """A split of noise."""
    folder = tmp_path / "split"
    x = np.random.default_rng(0).integers(0, 256, (COUNT, 32, 32, 3), np.uint8)
    create(folder, COUNT, x.shape[1:], 10, np.dtype(np.float32))
    write_rows(folder, 0, x, np.arange(COUNT) % 10)
    return Split(folder)


def images_of_epoch(batches: BatchLoader, seed: int, epoch: int) -> np.ndarray:
    """The images of an epoch, (N, 32, 32, 3), in the split's order."""
    batches.shuffle(seed, epoch)
    x = np.concatenate([batches[index][0] for index in range(len(batches))])
    return x[np.argsort(batches.order)]


def test_every_image_is_trained_on_or_kept_for_validation(split: Split) -> None:
    original = split.read("x.npy", np.arange(COUNT))
    for share, kept in ((1.0, COUNT), (0.25, 15), (0.001, 1)):
        selections = keep_for_validation(split, split, share, seed=3)
        training, validation = (BatchLoader(images, 7) for images in selections)
        assert (training.split.count, validation.split.count) == (2 * COUNT - kept, kept)
        training.shuffle(0, 0)
        batches = [
            loader[index] for loader in (training, validation) for index in range(len(loader))
        ]
        x, y = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
        numbers = (x[:, None] == original).all(axis=(2, 3, 4)).argmax(axis=1)
        assert np.array_equal(np.bincount(numbers), [2] * COUNT)  # once as a row of either split
        assert np.array_equal(y.argmax(axis=1), numbers % 10)


def test_shifted_image_is_filled_with_its_reflection_and_then_mirrored() -> None:
    image = np.arange(5 * 5, dtype=np.float32).reshape(1, 5, 5, 1)
    padded = np.pad(image, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
    for down in range(-2, 3):
        for right in range(-2, 3):
            shifted = padded[:, 2 - down : 7 - down, 2 - right : 7 - right]
            for flip in (False, True):
                x = flip_and_shift(image, np.array([flip]), np.array([[down, right]]))
                assert np.array_equal(x, shifted[:, :, ::-1] if flip else shifted)


def test_alternating_flip_mirrors_each_image_in_every_other_epoch(split: Split) -> None:
    batches = BatchLoader(split, 7)
    batches.augment("alternating", 0)
    original = split.read("x.npy", np.arange(COUNT))
    epochs = [images_of_epoch(batches, 3, epoch) for epoch in range(4)]
    unchanged = [(x == original).all(axis=(1, 2, 3)) for x in epochs]
    for before, after in pairwise(unchanged):
        assert np.array_equal(before, ~after)
    assert 10 < unchanged[0].sum() < 50
    assert np.array_equal(epochs[0], epochs[2])
    assert np.array_equal(epochs[0][:, :, ::-1], epochs[1])


def test_images_of_an_epoch_depend_on_seed_and_epoch_alone(split: Split) -> None:
    continued, restarted = BatchLoader(split, 7), BatchLoader(split, 7)
    for batches in (continued, restarted):
        batches.augment("random", 2)
    epochs = [images_of_epoch(continued, 3, epoch) for epoch in range(3)]
    assert np.array_equal(images_of_epoch(restarted, 3, 2), epochs[2])
    assert not np.array_equal(epochs[1], epochs[2])
    assert not np.array_equal(images_of_epoch(restarted, 4, 2), epochs[2])


def test_two_processes_read_the_halves_of_each_batch(split: Split) -> None:
    batches = BatchLoader(split, 7)
    halves = [BatchLoader(split, 7, process, 2) for process in range(2)]
    for each in (batches, *halves):
        each.augment("random", 2)
        each.shuffle(3, 2)
    for index in range(len(batches)):
        parts = zip(*(half[index] for half in halves), strict=True)
        for array, array_parts in zip(batches[index], parts, strict=True):
            assert np.array_equal(array, np.concatenate(array_parts))
