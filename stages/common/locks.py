"""One process per stage."""

import fcntl
import os

from stages.common import paths
from stages.common.errors import StageError


def lock_stage(stage: str) -> None:
    """Lock a stage until this process ends, however it ends.

    DVC's own lock is released when `dvc` is killed, but the stage it started keeps running. Raises
    `StageError` with the process ID of the lock's holder.
    """
    paths.STAGE_LOCKS.mkdir(parents=True, exist_ok=True)
    lock = os.open(paths.STAGE_LOCKS / f"{stage}.lock", os.O_RDWR | os.O_CREAT)  # never closed
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(lock, 20).decode()
        raise StageError(
            f"{stage}: already running (pid {pid}); wait until it ends or `kill {pid}`, then run "
            "it again"
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
