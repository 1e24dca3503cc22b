"""A generated data set that stands in for CIFAR-10 in the demo and the tests."""

import numpy as np

from stages.sources.cifar import CLASSES
from stages.sources.images import Images, from_arrays


def draw(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw images (count, 32, 32, 3) uint8 of ten classes and their labels (count,) uint8.

    A class is a hue and an angle of stripes in a disc of random position, size and phase, on a
    noisy grey background. Hue and angle vary into the neighboring classes, so that classes overlap.
    """
    labels = rng.permutation(np.arange(count) % 10).astype(np.uint8)
    kind = (labels + rng.normal(0, 0.35, count)) / 10

    def uniform(low: float, high: float) -> np.ndarray:
        """One value per image, (count, 1, 1)."""
        return rng.uniform(low, high, (count, 1, 1))

    y, x = np.mgrid[0:32, 0:32][:, None]
    inside = np.hypot(y - uniform(10, 22), x - uniform(10, 22)) < uniform(6, 11)
    angle = np.pi * kind[:, None, None]
    waves = np.sin(0.9 * (x * np.cos(angle) + y * np.sin(angle)) + uniform(0, 2 * np.pi))
    # Three cosines, each shifted by a third of a period, go through all hues.
    phases = kind[:, None, None, None] + np.array([0, 1 / 3, 2 / 3])
    color = 128 + 70 * np.cos(2 * np.pi * phases) + 40 * waves[..., None]
    images = np.where(inside[..., None], color, uniform(60, 190)[..., None])
    images += rng.normal(0, 25, images.shape)
    return images.clip(0, 255).astype(np.uint8), labels


def generate(images_per_file: int, seed: int) -> Images:
    """Six files' worth of images as in CIFAR-10's archive, of which the last one is for testing."""
    rng = np.random.default_rng(seed)
    batches = [draw(images_per_file, rng) for _ in range(6)]
    images, labels = (np.concatenate(arrays) for arrays in zip(*batches[:-1], strict=True))
    return from_arrays(CLASSES, (images, labels), batches[-1])
