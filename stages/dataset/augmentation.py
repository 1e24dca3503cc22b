"""Augmentation of training images.

Not Keras' preprocessing layers: these cannot mirror an image in every other epoch, shift
it by whole pixels with its reflection at the edges, or repeat an epoch from seed and epoch number
alone, which byte-identical resume needs.
"""

import numpy as np


def flip_and_shift(x: np.ndarray, flips: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Shift images (N, H, W, C) by `shifts` (N, 2) pixels, then mirror them where `flips` (N,).

    Shifts are down and right; pixels that enter at an edge are its reflection.
    """
    _, height, width, _ = x.shape
    margin = int(np.abs(shifts).max(initial=0))
    rows, columns = (
        np.pad(np.arange(size), margin, mode="reflect")[
            margin + np.arange(size) - shifts[:, axis, None]
        ]
        for axis, size in enumerate((height, width))
    )
    columns = np.where(flips[:, None], columns[:, ::-1], columns)
    augmented: np.ndarray = x[
        np.arange(len(x))[:, None, None], rows[:, :, None], columns[:, None, :]
    ]
    return augmented
