"""The process of a stage: alone, and with inputs that stay as they are.

DVC records the inputs of a stage after its command: what is edited meanwhile would be recorded as
if it had been used.
"""

import operator
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from stages.common import params, paths
from stages.common.console import first_few
from stages.common.errors import StageError

try:
    import fcntl
except ImportError:
    raise StageError(
        "stages need Linux or macOS; on Windows, run them in WSL 2: https://learn.microsoft.com/wsl"
    ) from None

Stamps = dict[Path, tuple[int, int]]  # size in bytes and time of the last change in ns


def lock(stage: str) -> None:
    """Lock a stage until this process ends, however it ends.

    DVC's own lock is released when `dvc` is killed, but the stage it started keeps running. Raises
    `StageError` with the process ID of the lock's holder.
    """
    paths.STAGE_LOCKS.mkdir(parents=True, exist_ok=True)
    file = os.open(paths.STAGE_LOCKS / f"{stage}.lock", os.O_RDWR | os.O_CREAT)  # never closed
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(file, 20).decode()
        raise StageError(
            f"{stage}: already running (pid {pid}); wait until it ends or `kill {pid}`, then run "
            "it again"
        ) from None
    os.ftruncate(file, 0)
    os.pwrite(file, str(os.getpid()).encode(), 0)


def inputs(stage: str) -> list[Path]:
    """The files and folders that a stage depends on, as dvc.yaml names them."""
    name, _, key = stage.partition("@")
    entry = params.read_yaml(paths.DVC_YAML)["stages"][name]
    entry = entry.get("do", entry)

    def value(variable: re.Match[str]) -> str:
        path = variable[1]
        if path == "key":
            return key
        values = params.load().model(key) if path.startswith("item.") else params.load()
        return str(operator.attrgetter(path.removeprefix("item."))(values))

    named = [*entry["deps"], *(file for files in entry.get("params", []) for file in files)]
    return [Path(re.sub(r"\$\{([\w.]+)\}", value, path)) for path in named]


def stamps(named: Iterable[Path]) -> Stamps:
    """Size and time of the files that there are, and of those in folders.

    Bytecode, hidden files and editors' backups are left out. Not `Path.rglob`, which before Python
    3.13 recurses into folders.
    """
    found: Stamps = {}
    left = [*named]
    while left:
        path = left.pop()
        try:
            status = path.stat()
            if not stat.S_ISDIR(status.st_mode):
                found[path] = status.st_size, status.st_mtime_ns
                continue
            with os.scandir(path) as entries:
                left += [
                    path / entry.name
                    for entry in entries
                    if not (entry.name.startswith(".") or entry.name.endswith("~"))
                    and entry.name != "__pycache__"
                    and not (entry.is_symlink() and entry.is_dir())  # may lead into a loop
                ]
        except OSError:  # there is no such file, or a link without a target
            continue
    return found


CODE_AT_IMPORT = stamps([paths.CODE])  # every stage imports this before what takes seconds


class RunningStage:
    """Locks a stage until this process ends, and notes its inputs."""

    def __init__(self, stage: str) -> None:
        lock(stage)
        self.stage = stage
        self.inputs = inputs(stage)
        before = stamps(self.inputs)
        self.before = {path: CODE_AT_IMPORT.get(path, stamp) for path, stamp in before.items()}

    def check_inputs(self) -> None:
        """Raise `StageError` if an input has changed; a stage calls this before it writes."""
        now = stamps(self.inputs)
        changed = sorted({path for path, _ in now.items() ^ self.before.items()})
        if changed:
            raise StageError(
                f"{first_few(changed)}: changed while {self.stage} was running, so its results "
                "belong to an earlier version; `dvc repro` runs it again"
            )
