"""Batches for Keras, read from the disk one by one, so that memory does not grow with the data."""

from typing import Any

import numpy as np

from stages.support.arrays import ROW_SHAPES, Split
from stages.support.quietly import keras


class Batches(keras.utils.PyDataset):
    """A split in batches of x (batch, 32, 32, 3) and y (batch, 10), in the order of its rows.

    Process number `process` of `processes` reads only its equal share of every batch.
    """

    def __init__(self, split: Split, batch_size: int, process: int = 0, processes: int = 1) -> None:
        super().__init__()
        self.split, self.batch_size = split, batch_size
        self.process, self.processes = process, processes
        self.order = np.arange(split.count)

    def shuffle(self, seed: int, epoch: int) -> None:
        """Take an order given by these two alone, so that any epoch can be redone."""
        self.order = np.random.default_rng([seed, epoch]).permutation(self.split.count)

    def __len__(self) -> int:
        return -(-self.split.count // self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self.order[index * self.batch_size :][: self.batch_size]
        return self.split.rows(np.array_split(rows, self.processes)[self.process])

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
