"""Batches for Keras, read from the disk one by one, so that memory does not grow with the data."""

from typing import Any, Literal

import numpy as np

from stages.support.arrays import ROW_SHAPES, Split
from stages.support.quietly import keras


def moved(x: np.ndarray, flips: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Pictures (N, H, W, 3), each mirrored where `flips` (N,) and moved by `shifts` (N, 2) pixels.

    What comes in at an edge is the picture's own reflection there.
    """
    _, height, width, _ = x.shape
    margin = int(np.abs(shifts).max(initial=0))
    down, right = (
        np.pad(np.arange(size), margin, mode="reflect")[
            margin + np.arange(size) - shifts[:, axis, None]
        ]
        for axis, size in enumerate((height, width))
    )
    right = np.where(flips[:, None], right[:, ::-1], right)
    changed: np.ndarray = x[np.arange(len(x))[:, None, None], down[:, :, None], right[:, None, :]]
    return changed


class Batches(keras.utils.PyDataset):
    """A split in batches of x (batch, 32, 32, 3) and y (batch, 10), in the order of its rows.

    Process number `process` of `processes` reads only its equal share of every batch.
    """

    def __init__(self, split: Split, batch_size: int, process: int = 0, processes: int = 1) -> None:
        super().__init__()
        self.split, self.batch_size = split, batch_size
        self.process, self.processes = process, processes
        self.order = np.arange(split.count)
        self.augment("none", 0)

    def augment(self, flip: Literal["none", "random", "alternating"], translate: int) -> None:
        """Have `shuffle` mirror pictures, and move them by up to `translate` pixels.

        `alternating` mirrors a random half in the first epoch, the other half in the next, and so
        on (Jordan 2024, arXiv 2404.00498, section 3.6).
        """
        self.flip, self.translate = flip, translate
        self.flips = np.zeros(self.split.count, bool)
        self.shifts = np.zeros((self.split.count, 2), np.int8)

    def shuffle(self, seed: int, epoch: int) -> None:
        """Take an order and changes given by these two alone, so that any epoch can be redone."""
        count, generator = self.split.count, np.random.default_rng([seed, epoch])
        self.order = generator.permutation(count)
        farthest = self.translate
        self.shifts = generator.integers(-farthest, farthest, (count, 2), np.int8, endpoint=True)
        if self.flip == "random":
            self.flips = generator.random(count) < 0.5
        elif self.flip == "alternating":
            self.flips = (np.random.default_rng(seed).random(count) < 0.5) ^ (epoch % 2 == 1)

    def __len__(self) -> int:
        return -(-self.split.count // self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        whole = self.order[index * self.batch_size :][: self.batch_size]
        rows = np.array_split(whole, self.processes)[self.process]
        x, y = self.split.rows(rows)
        if self.flip != "none" or self.translate:
            x = moved(x, self.flips[rows], self.shifts[rows])
        return x, y

    def source(self) -> Any:
        """What Keras trains and evaluates from on the backend in use: this or a `tf.data.Dataset`.

        The dataset Keras would make of this tunes itself, and no epoch of it ends before the tuner
        next looks: 10 ms after the start, then another 20, 40, ... up to 60,000 ms later.
        """
        if keras.backend.backend() != "tensorflow":
            return self
        import tensorflow as tf

        x, y = (tf.TensorSpec((None, *shape)) for shape in ROW_SHAPES.values())
        options = tf.data.Options()
        options.autotune.enabled = False
        batches = tf.data.Dataset.from_generator(
            lambda: (self[index] for index in range(len(self))), output_signature=(x, y)
        )
        sized = batches.apply(tf.data.experimental.assert_cardinality(len(self)))
        return sized.prefetch(2).with_options(options)
