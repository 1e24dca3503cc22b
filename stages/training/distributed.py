"""Training on several devices and hosts with `keras.distribution`, on JAX.

Each process trains on its share of every batch; process 0 alone writes checkpoints and results.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from stages.common.errors import StageError
from stages.common.quiet_keras import keras

# https://keras.io/api/distribution/
ADDRESS = "KERAS_DISTRIBUTION_JOB_ADDRESSES"
PROCESS = "KERAS_DISTRIBUTION_PROCESS_ID"


def is_main_process() -> bool:
    """Whether this is process 0, as far as known before `initialize`."""
    return os.environ.get(PROCESS, "0") == "0"


def initialize() -> tuple[int, int]:
    """Join the processes named by Keras' environment variables, and use all devices.

    Returns this process's number and the number of processes: (0, 1) without these variables.
    Raises `StageError` if the other processes cannot be reached.
    """
    if keras.backend.backend() != "jax":
        if ADDRESS in os.environ:
            raise StageError(
                f"{ADDRESS}: only JAX trains in several processes; set KERAS_BACKEND=jax"
            )
        return 0, 1
    import jax

    if ADDRESS in os.environ:
        # It would swallow SIGTERM.
        jax.config.update("jax_enable_preemption_service", False)  # type: ignore[no-untyped-call]
        try:
            keras.distribution.initialize()
        except (ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise StageError(
                f"{ADDRESS}={os.environ[ADDRESS]}: {error!s:.200}; set it, "
                f"KERAS_DISTRIBUTION_NUM_PROCESSES and {PROCESS} in each process"
            ) from None
    if jax.device_count() > 1:
        keras.distribution.set_distribution(
            keras.distribution.DataParallel(auto_shard_dataset=False)  # `BatchLoader` yields shares
        )
    return jax.process_index(), jax.process_count()


def check_divisible(count: int, batch_size: int) -> None:
    """Check that every batch of `count` images can be divided among all devices."""
    distribution = keras.distribution.distribution()
    devices = distribution.device_mesh.devices.size if distribution else 1
    for images in (min(batch_size, count), count % batch_size):
        if images % devices:
            raise StageError(
                f"params.yaml: batch_size: {batch_size}: a batch of {images} of the {count} images "
                f"cannot be divided among {devices} devices; change batch_size or validation_split"
            )


def broadcast_state(epochs: int, values: Sequence[Any]) -> tuple[int, list[np.ndarray]]:
    """Give every process the completed epochs and the variables' values of process 0."""
    from jax.experimental.multihost_utils import broadcast_one_to_all

    first, *others = broadcast_one_to_all([np.asarray(value) for value in (epochs, *values)])
    return int(first), [np.asarray(value) for value in others]


@contextmanager
def exit_on_peer_failure(name: str) -> Iterator[None]:
    """Exit at once and in one line if this process or another one fails.

    Otherwise a failing process waits for minutes for its peers, which wait for it.
    """
    try:
        yield
    except (Exception, StageError) as error:  # Gloo raises many types
        if not isinstance(error, StageError):
            error = StageError(
                f"{name}: another process has ended, or this one failed: {error!s:.200}; start all "
                "of them again to resume after the last completed epoch"
            )
        os.write(2, f"{error}\n".encode())
        os._exit(1)
    import jax

    jax.distributed.shutdown()  # type: ignore[no-untyped-call]  # waits for the others
