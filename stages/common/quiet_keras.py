"""Keras without TensorFlow's start-up messages: `from stages.common.quiet_keras import keras`.

TensorFlow 2.21 prints them from C++, where no setting reaches them
(https://github.com/tensorflow/tensorflow/issues/100442). Everything else that is printed during the
import, including warnings, is passed on.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

START_UP_MESSAGES = re.compile(
    rb"All log messages before absl::InitializeLog|oneDNN custom operations are on"
    rb"|Could not find cuda drivers|failed call to cuInit|optimized to use available CPU"
    rb"|To enable the following instructions"
)


@contextmanager
def without_start_up_messages() -> Iterator[None]:
    """Capture standard error; at the end, write everything but the start-up messages."""
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            captured.seek(0)
            for line in captured:
                if not START_UP_MESSAGES.search(line):
                    os.write(2, line)


with without_start_up_messages():
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.list_physical_devices()  # searches for GPUs now, and reports missing drivers

__all__ = ["keras"]
