"""One training on several devices and hosts: Keras' distribution on JAX, which does the work.

Every process trains on its share of each batch; process 0 alone keeps checkpoints and writes.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from stages.support.errors import StageError
from stages.support.quietly import keras

ADDRESS = "KERAS_DISTRIBUTION_JOB_ADDRESSES"
PROCESS = "KERAS_DISTRIBUTION_PROCESS_ID"


def writes() -> bool:
    """Whether this process is the one that writes, known before it has joined the others."""
    return os.environ.get(PROCESS, "0") == "0"


def join() -> tuple[int, int]:
    """Join the processes that Keras' environment variables name, and use all their devices.

    Gives this process's number, 0 in a training of one process, and how many processes there are.
    https://keras.io/api/distribution/ has the variables. `StageError` where they are not to be had.
    """
    if keras.backend.backend() != "jax":
        if ADDRESS in os.environ:
            raise StageError(
                f"{ADDRESS}: only JAX trains in several processes; set KERAS_BACKEND=jax"
            )
        return 0, 1
    import jax

    if ADDRESS in os.environ:
        try:
            keras.distribution.initialize()
        except (ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise StageError(
                f"{ADDRESS}={os.environ[ADDRESS]}: {error!s:.200}; set it, "
                f"KERAS_DISTRIBUTION_NUM_PROCESSES and {PROCESS} in each process"
            ) from None
    if jax.device_count() > 1:
        keras.distribution.set_distribution(
            keras.distribution.DataParallel(auto_shard_dataset=False)  # `Batches` gives shares
        )
    return jax.process_index(), jax.process_count()


def check_divisible(count: int, batch_size: int) -> None:
    """Check that every batch of `count` pictures can be dealt evenly to all devices."""
    distribution = keras.distribution.distribution()
    devices = distribution.device_mesh.devices.size if distribution else 1
    for pictures in (min(batch_size, count), count % batch_size):
        if pictures % devices:
            raise StageError(
                f"params.yaml: batch_size: {batch_size}: of {count} pictures a batch has "
                f"{pictures}, which can't be dealt evenly to {devices} devices; change batch_size "
                "or validation_split"
            )


def agree(epochs: int, values: Sequence[Any]) -> tuple[int, list[np.ndarray]]:
    """Give every process the finished epochs and the variables' values of process 0."""
    from jax.experimental.multihost_utils import broadcast_one_to_all

    own = np.asarray(epochs), [np.asarray(value) for value in values]
    first_epochs, first_values = broadcast_one_to_all(own)
    return int(first_epochs), [np.asarray(value) for value in first_values]


@contextmanager
def together(name: str) -> Iterator[None]:
    """End this process at once and in one line where it, or another one, fails.

    A process that ends any other way first waits minutes for those that wait for it.
    """
    try:
        yield
    except (Exception, StageError) as error:  # Gloo's come as many kinds
        message: object = error
        if not isinstance(error, StageError):
            message = StageError(
                f"{name}: another of the processes has ended, or this one failed: {error!s:.200}; "
                "start all of them again, they go on after the last finished epoch"
            )
        os.write(2, f"{message}\n".encode())
        os._exit(1)
    import jax

    jax.distributed.shutdown()  # type: ignore[no-untyped-call]  # waits for the others
