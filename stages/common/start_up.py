"""What a stage's process does before anything else: it makes its standard streams safe to use, and
lets Ctrl-C, SIGTERM and SIGHUP end it at once and in one line.
"""

import io
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


def open_standard_streams() -> None:
    """Open closed standard streams, and let standard output escape what its encoding lacks.

    Otherwise the first files that are opened would get the descriptors 0 to 2, and messages of C++
    libraries end up in them.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # as Python has it if the descriptor is closed
            descriptor = os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
            os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, mode))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as Python does for standard error


def exit_on_signals() -> None:
    """Let each of `SIGNALS` end this process and its children, unless it is ignored (`nohup`).

    A thread waits for them: Python calls a signal handler only when the main thread returns to the
    interpreter, from which an import or a training step keeps it for seconds, and an exception that
    a handler raises inside a callback of TensorFlow gets lost.
    """
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    stderr = os.dup(2)  # `quiet_keras` captures descriptor 2 for a while
    threading.Thread(target=exit_on_signal, args=(read_end, stderr), daemon=True).start()
    signal.set_wakeup_fd(write_end)
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            # Python also writes the number to the pipe. The main thread waits for the end, or it
            # would go on when its child is killed.
            signal.signal(number, lambda *_: time.sleep(60))


def exit_on_signal(read_end: int, stderr: int) -> None:
    """Wait for the number of one of `SIGNALS`, then exit with the shell's status for it."""
    while (number := os.read(read_end, 1)[0]) not in SIGNALS:
        pass
    for child in descendants(os.getpid()):
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    with suppress(OSError):  # standard error may be a closed pipe
        os.write(stderr, b"interrupted: run it again to resume\n")
    os._exit(128 + number)


def descendants(pid: int) -> list[int]:
    """The process IDs of a process's children and of theirs; empty without Linux' /proc.

    There a terminal's Ctrl-C reaches them anyway.
    """
    children = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # it has ended
            children += [int(child) for child in file.read_text().split()]
    return children + [child for parent in children for child in descendants(parent)]
