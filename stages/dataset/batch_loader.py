"""Batches of a split for Keras, read from disk one by one: memory does not grow with the data."""

from typing import Any, Literal

import numpy as np

from stages.common.quiet_keras import keras
from stages.dataset.augmentation import flip_and_shift
from stages.dataset.splits import Selection, Split, scale


class BatchLoader(keras.utils.PyDataset):
    """Batches of x (batch, H, W, 3) in [0, 1] and one-hot y (batch, K), both float32.

    They are in row order until shuffled. With several processes, number `process` of `processes`
    reads its equal share of each batch.
    """

    def __init__(
        self,
        split: Split | Selection,
        classes: int,
        batch_size: int,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        super().__init__()
        self.split, self.classes, self.batch_size = split, classes, batch_size
        self.process, self.processes = process, processes
        self.order = np.arange(split.count)
        self.augment("none", 0)

    def augment(self, flip: Literal["none", "random", "alternating"], translate: int) -> None:
        """Let `shuffle` mirror images and shift them by up to `translate` pixels.

        `alternating` mirrors a random half of the images in one epoch, the other half in the next
        (Jordan 2024, arXiv 2404.00498, section 3.6).
        """
        self.flip, self.translate = flip, translate
        self.flips = np.zeros(self.split.count, bool)
        self.shifts = np.zeros((self.split.count, 2), np.int8)

    def shuffle(self, seed: int, epoch: int) -> None:
        """Set order and augmentation from seed and epoch alone: any epoch can be repeated."""
        count, generator = self.split.count, np.random.default_rng([seed, epoch])
        self.order = generator.permutation(count)
        limit = self.translate
        self.shifts = generator.integers(-limit, limit, (count, 2), np.int8, endpoint=True)
        if self.flip == "random":
            self.flips = generator.random(count) < 0.5
        elif self.flip == "alternating":
            self.flips = (np.random.default_rng(seed).random(count) < 0.5) ^ (epoch % 2 == 1)

    def __len__(self) -> int:
        return -(-self.split.count // self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        batch = self.order[index * self.batch_size :][: self.batch_size]
        indices = np.array_split(batch, self.processes)[self.process]
        images = self.split.images(indices)
        if self.flip != "none" or self.translate:
            images = flip_and_shift(images, self.flips[indices], self.shifts[indices])
        return scale(images), np.eye(self.classes, dtype=np.float32)[self.split.labels[indices]]

    def as_dataset(self) -> Any:
        """A `tf.data.Dataset` of these batches on TensorFlow, `self` on other backends.

        The dataset that Keras makes of a `PyDataset` has an autotuner, which an epoch waits for at
        its end: it wakes up 10 ms after the start, then after another 20, 40, … up to 60,000 ms.
        """
        if keras.backend.backend() != "tensorflow":
            return self
        import tensorflow as tf

        shapes = self.split.image_shape, (self.classes,)
        x, y = (tf.TensorSpec((None, *shape)) for shape in shapes)
        options = tf.data.Options()
        options.autotune.enabled = False
        batches = tf.data.Dataset.from_generator(
            lambda: (self[index] for index in range(len(self))), output_signature=(x, y)
        )
        sized = batches.apply(tf.data.experimental.assert_cardinality(len(self)))
        return sized.prefetch(2).with_options(options)
