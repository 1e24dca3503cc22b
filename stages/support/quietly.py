"""Keras, imported without the lines TensorFlow prints at every start: `from ... import keras`.

They come from C++, where no setting of TensorFlow 2.21 reaches them
(https://github.com/tensorflow/tensorflow/issues/100442). Whatever else is printed meanwhile, real
warnings too, is passed on.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

ROUTINE = re.compile(
    rb"All log messages before absl::InitializeLog|oneDNN custom operations are on"
    rb"|Could not find cuda drivers|failed call to cuInit|optimized to use available CPU"
    rb"|To enable the following instructions"
)


@contextmanager
def without_routine_lines() -> Iterator[None]:
    """Hold back what is written to standard error; afterwards pass on all that is not routine."""
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            for line in held:
                if not ROUTINE.search(line):
                    os.write(2, line)


with without_routine_lines():
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.list_physical_devices()  # looks for GPUs now, and says that there is no driver

__all__ = ["keras"]
