"""Splits on disk, and batches of them: their images, order and augmentation."""

from pathlib import Path

import numpy as np
import pytest

from stages.common.errors import StageError
from stages.dataset.augmentation import flip_and_shift
from stages.dataset.batch_loader import BatchLoader
from stages.dataset.splits import Split, SplitWriter, prediction_batch_size, select
from tests.params_edits import edited_model

COUNT, CLASSES, SEED = 60, 10, 3
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 32, 32, 3), np.uint8)
LABELS = (np.arange(COUNT) % CLASSES).astype(np.uint16)


@pytest.fixture
def split(tmp_path: Path) -> Split:
    """A split of noise, written in three pieces."""
    writer = SplitWriter(tmp_path / "split", 32)
    for rows in np.split(np.arange(COUNT), [5, 5]):
        writer.append(IMAGES[rows], LABELS[rows])
    writer.close()
    return Split(tmp_path / "split")


def images_of_epoch(batches: BatchLoader, seed: int, epoch: int) -> np.ndarray:
    """The images of an epoch, (N, 32, 32, 3), in the split's order."""
    batches.shuffle(seed, epoch)
    return np.concatenate([x for x, _ in batches])[np.argsort(batches.order)]


def test_split_is_a_pair_of_ordinary_arrays(split: Split, tmp_path: Path) -> None:
    np.testing.assert_array_equal(np.load(tmp_path / "split/x.npy"), IMAGES, strict=True)
    np.testing.assert_array_equal(np.load(tmp_path / "split/y.npy"), LABELS, strict=True)


def test_split_with_fewer_labels_than_images_is_refused(split: Split, tmp_path: Path) -> None:
    np.save(tmp_path / "split/y.npy", split.labels[1:])
    with pytest.raises(StageError, match=r"split: damaged: 60 images but 59 labels"):
        Split(tmp_path / "split")


def test_every_image_is_trained_on_or_kept_for_validation(split: Split) -> None:
    for share, minimum, kept in (
        (1.0, 1, COUNT),
        (0.25, 1, 15),
        (0.001, 1, 1),
        (0.25, 20, 20),
        (0.25, COUNT + 1, COUNT),
    ):
        edits = f"validation_share={share}", f"min_validation_images={minimum}"
        settings = edited_model("fast94", *(f"models.fast94.{edit}" for edit in edits))
        selections = select(split, split, settings, SEED)
        loaders = [BatchLoader(images, CLASSES, 7) for images in selections]
        assert [loader.split.count for loader in loaders] == [2 * COUNT - kept, kept]
        loaders[0].shuffle(SEED, 0)
        batches = (batch for loader in loaders for batch in loader.as_dataset())
        x, y = map(np.concatenate, zip(*batches, strict=True))
        numbers = (x[:, None] == np.float32(IMAGES) / 255).all(axis=(2, 3, 4)).argmax(axis=1)
        assert np.array_equal(np.bincount(numbers), [2] * COUNT)  # once as a row of either split
        assert np.array_equal(y, np.eye(CLASSES)[LABELS[numbers]])


def test_shifted_image_is_filled_with_its_reflection_and_then_mirrored() -> None:
    padded = np.pad(IMAGES[:1], ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
    for down, right, flip in np.ndindex(5, 5, 2):
        expected = padded[:, 4 - down : 36 - down, 4 - right : 36 - right]
        x = flip_and_shift(IMAGES[:1], np.array([flip == 1]), np.array([[down - 2, right - 2]]))
        assert np.array_equal(x, expected[:, :, ::-1] if flip else expected)


def test_alternating_flip_mirrors_each_image_in_every_other_epoch(split: Split) -> None:
    batches = BatchLoader(split, CLASSES, 7)
    batches.augment("alternating", translate=0)
    even, odd, next_even = (images_of_epoch(batches, SEED, epoch) for epoch in range(3))
    assert 10 < (even == np.float32(IMAGES) / 255).all(axis=(1, 2, 3)).sum() < 50
    assert np.array_equal([even, even[:, :, ::-1]], [next_even, odd])


def test_images_of_an_epoch_depend_on_seed_and_epoch_alone(split: Split) -> None:
    continued, restarted = (BatchLoader(split, CLASSES, 7) for _ in range(2))
    for batches in (continued, restarted):
        batches.augment("random", translate=2)
    first, second = (images_of_epoch(continued, SEED, epoch) for epoch in range(2))
    assert np.array_equal(images_of_epoch(restarted, SEED, 1), second)
    assert not np.array_equal(first, second)
    assert not np.array_equal(images_of_epoch(restarted, SEED + 1, 1), second)


def test_two_processes_read_the_halves_of_each_batch(split: Split) -> None:
    loaders = [BatchLoader(split, CLASSES, 7, *process) for process in ((), (0, 2), (1, 2))]
    for each in loaders:
        each.augment("random", translate=2)
        each.shuffle(SEED, 2)
    for batches in zip(*loaders, strict=True):
        for whole, *halves in zip(*batches, strict=True):
            assert np.array_equal(whole, np.concatenate(halves))


@pytest.mark.parametrize(("side", "images"), [(32, 250), (64, 250), (128, 62), (512, 3), (2048, 1)])
def test_larger_images_are_predicted_in_smaller_batches(side: int, images: int) -> None:
    assert prediction_batch_size((side, side, 3)) == images
