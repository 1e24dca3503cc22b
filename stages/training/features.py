"""Features of a frozen network, computed once instead of in every epoch."""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from stages.common.atomic import atomic_write
from stages.common.quiet_keras import keras
from stages.dataset.splits import Selection, Split, scale

BATCH_SIZE = 64  # affects only speed, memory and the last digits


def divide(model: keras.Model) -> tuple[keras.Model, keras.Model] | None:
    """A frozen model that is another one's first layer, and the layers after it; else None."""
    first, *others = model.layers
    if not isinstance(first, keras.Model) or first.trainable or not others:
        return None
    return first, keras.Sequential([keras.Input(first.output_shape[1:]), *others])


def compute(frozen: keras.Model, images: Split | Selection, folder: Path) -> Split:
    """The outputs of a frozen model for a split, in `folder` as a split with x.npy float32.

    What an earlier process has completed is used again.
    """
    if not folder.exists():
        print(f"computing the features of {images.count:,} images", flush=True)
        with atomic_write(folder) as partial:
            partial.mkdir()
            shape = (images.count, *frozen.output_shape[1:])
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            steps = tqdm(  # None: only in a terminal
                range(0, images.count, BATCH_SIZE), "features", disable=None, leave=False
            )
            with (partial / "x.npy").open("wb") as file:  # a memory map dies on a full disk
                np.lib.format.write_array_header_1_0(file, header)
                for first in steps:
                    rows = np.arange(first, min(first + BATCH_SIZE, images.count))
                    outputs = frozen.predict_on_batch(scale(images.images(rows)))
                    file.write(outputs.astype(np.float32).tobytes())
            np.save(partial / "y.npy", images.labels)
    return Split(folder)
