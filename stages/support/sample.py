"""A generated picture set that stands in for CIFAR-10 in the demo and the tests."""

from pathlib import Path

import numpy as np

from stages.support import archive


def draw(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw pictures (count, 32, 32, 3) uint8 of ten classes and their labels (count,) uint8.

    A class is a hue and a slant of stripes inside a disc of random place, size and phase on a noisy
    grey ground; both wander a little into the neighbouring classes', so that the classes overlap.
    """
    labels = rng.permutation(np.arange(count) % 10).astype(np.uint8)
    kind = (labels + rng.normal(0, 0.35, count)) / 10

    def per_picture(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, (count, 1, 1))

    y, x = np.mgrid[0:32, 0:32][:, None]
    inside = np.hypot(y - per_picture(10, 22), x - per_picture(10, 22)) < per_picture(6, 11)
    angle = np.pi * kind[:, None, None]
    waves = np.sin(0.9 * (x * np.cos(angle) + y * np.sin(angle)) + per_picture(0, 2 * np.pi))
    # Three cosines a third of a turn apart go round the hues.
    turns = kind[:, None, None, None] + np.array([0, 1 / 3, 2 / 3])
    colour = 128 + 70 * np.cos(2 * np.pi * turns) + 40 * waves[..., None]
    pictures = np.where(inside[..., None], colour, per_picture(60, 190)[..., None])
    pictures += rng.normal(0, 25, pictures.shape)
    return pictures.clip(0, 255).astype(np.uint8), labels


def write(path: Path, pictures_per_batch: int, seed: int) -> None:
    """Write the sample as an archive in the official layout; equal arguments give equal bytes."""
    rng = np.random.default_rng(seed)
    batches = {name: draw(pictures_per_batch, rng) for name in archive.BATCHES}
    archive.write_batches(path, batches, "generated sample")
