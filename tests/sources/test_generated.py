"""The generated sample."""

import numpy as np

from stages.sources import generated


def test_sample_depends_on_its_seed_and_has_all_classes_in_equal_numbers() -> None:
    first, second, other = (generated.generate(20, seed).batches for seed in (7, 7, 8))
    for batch, same, another in zip(first, second, other, strict=True):
        assert (batch.images.shape, str(batch.images.dtype)) == ((6 * 20, 32, 32, 3), "uint8")
        assert np.array_equal(batch.images, same.images)
        assert np.array_equal(batch.labels, same.labels)
        assert not np.array_equal(batch.images, another.images)
        for file in batch.labels.reshape(6, 20):
            assert np.bincount(file).tolist() == [2] * 10
