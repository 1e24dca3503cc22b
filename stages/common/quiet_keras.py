"""Keras without TensorFlow's start-up messages: `from stages.common.quiet_keras import keras`.

TensorFlow 2.21 prints them from C++, where no setting reaches them
(https://github.com/tensorflow/tensorflow/issues/100442). Everything else that is printed during the
import, including warnings, is passed on.

Keras and TensorFlow also import Matplotlib and JAX where these are installed, for features that no
stage uses. Without them the import takes two thirds of the time.
"""

import functools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from stages.common.console import without_stderr
from stages.common.errors import StageError

without_start_up_messages = functools.partial(
    without_stderr,
    rb"All log messages before absl::InitializeLog|oneDNN custom operations are on"
    rb"|Could not find cuda drivers|failed call to cuInit|optimized to use available CPU"
    rb"|To enable the following instructions",
)


@contextmanager
def not_installed(*packages: str) -> Iterator[None]:
    """Let packages that are not imported yet seem not to be installed."""
    hidden = [package for package in packages if package not in sys.modules]
    sys.modules |= dict.fromkeys(hidden)  # type: ignore[arg-type]  # None: cannot be imported
    try:
        yield
    finally:
        for package in hidden:
            del sys.modules[package]


backend = os.environ.get("KERAS_BACKEND") or "tensorflow"
if backend not in ("tensorflow", "jax", "numpy"):
    raise StageError(f"KERAS_BACKEND={backend!r}: set it to tensorflow or jax")
unused = ["matplotlib", "jax"] if backend == "tensorflow" else ["matplotlib"]
try:
    with without_start_up_messages(), not_installed(*unused):
        import keras

        if backend == "tensorflow":
            import tensorflow as tf

            tf.config.list_physical_devices()  # searches for GPUs now, and reports missing drivers
except (ImportError, MemoryError) as error:
    reason = str(error).strip().rpartition("\n")[2] or "out of memory"
    raise StageError(
        f"Keras cannot be imported: {reason}; free some memory, or install it again: "
        "rm .venv/installed; make setup"
    ) from None

__all__ = ["keras"]
