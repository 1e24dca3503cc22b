"""A stage's process: signals end it at once and in one line, and its streams can be used."""

import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.repository import ROOT, Repository, training_results

INTERRUPTED = "interrupted: run it again to resume\n"
# Starts as `python -m` does, then runs what a test adds.
STAGE = """
import ctypes, os, signal, subprocess, sys, time
sys.argv = ["-m"]
{before}
import stages
{after}
"""


def start(after: str, before: str = "", **environment: str) -> subprocess.Popen[str]:
    """Start a process that imports `stages` as a stage does, between two pieces of code."""
    return subprocess.Popen(
        [sys.executable, "-c", STAGE.format(before=before, after=after)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(after: str, before: str = "", **environment: str) -> tuple[str, str, int]:
    """Output, errors and exit status of such a process."""
    process = start(after, before, **environment)
    output, errors = process.communicate(timeout=60)
    return output, errors, process.returncode


BUSY = {
    "in Python": "while True: pass",
    "in a C library": "ctypes.CDLL(None).sleep(60)",
    "in a C library with Python's lock": "ctypes.PyDLL(None).usleep(500_000); time.sleep(60)",
    "while standard error is captured": "os.dup2(os.open(os.devnull, 1), 2); time.sleep(60)",
    "waiting for a child": "subprocess.run(['sleep', '60']); print('went on', file=sys.stderr)",
    "in an `except` for everything": "while True:\n  try: time.sleep(60)\n  except: pass",
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("busy", BUSY.values(), ids=BUSY)
def test_signal_ends_a_stage_in_one_line(busy: str, number: signal.Signals) -> None:
    process = start(f"print(flush=True)\n{busy}")
    assert process.stdout
    process.stdout.readline()
    time.sleep(0.05)
    started = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert errors == INTERRUPTED
    assert process.returncode == 128 + number
    assert time.monotonic() - started < 5  # 0.1 s, or 0.5 s with Python's lock, if not busy


def test_signal_ends_a_stage_while_it_imports_tensorflow(trained: Repository) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process = subprocess.Popen(
            [sys.executable, "-m", "stages.evaluate", "simple_cnn"],
            cwd=trained.path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while psutil.Process(process.pid).num_threads() == 1:  # the interpreter starts
            time.sleep(0.001)
        delay = random.uniform(0.02, 1.5)
        time.sleep(delay)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert (errors, process.returncode) == (INTERRUPTED, 128 + number), delay


def test_signal_ends_the_children_of_a_stage() -> None:
    process = start("""if True:
        child = subprocess.Popen(["sh", "-c", "sleep 60 & echo $!; wait"])
        time.sleep(60)
    """)
    assert process.stdout
    grandchild = psutil.Process(int(process.stdout.readline()))
    process.terminate()
    process.communicate(timeout=60)
    grandchild.wait(timeout=60)


def test_ignored_signal_stays_ignored() -> None:
    before = "signal.signal(signal.SIGHUP, signal.SIG_IGN)"  # as nohup does
    output, _, status = run("os.kill(os.getpid(), signal.SIGHUP); print('alive')", before)
    assert (output, status) == ("alive\n", 0)


def test_other_handled_signal_does_not_end_a_stage() -> None:
    after = "signal.signal(signal.SIGUSR1, print); os.kill(os.getpid(), signal.SIGUSR1)"
    output, errors, status = run(f"{after}; time.sleep(0.2)")
    assert output.startswith("10 ")
    assert (errors, status) == ("", 0)


def test_importing_the_package_elsewhere_leaves_signals_alone() -> None:
    after = "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    assert run(after, before="sys.argv = ['notebook']")[0] == "True\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_opened(closed: str, tmp_path: object) -> None:
    after = f"""if True:
        file = open({str(tmp_path)!r} + "/file", "w")
        print("out", flush=True)
        print("error", file=sys.stderr, flush=True)
        os.system("echo from a child; echo from a child >&2")
        os.write(1, b"from C")
        os.write(2, b"from C")
        sys.exit(not (file.fileno() > 2 and os.path.getsize(file.name) == 0))
    """
    script = STAGE.format(before="", after=after)
    command = ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, script]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert "Bad file descriptor" not in result.stderr


def test_training_with_closed_standard_streams_gives_the_same_bytes(clone: Repository) -> None:
    results = training_results("simple_cnn")
    expected = clone.digests(results)
    (clone.path / "models/simple_cnn.keras").unlink()
    command = f"exec {sys.executable} -m stages.train simple_cnn <&- >&- 2>&-"
    clone.check("sh", "-c", command)
    assert clone.digests(results) == expected


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_name_that_the_encoding_lacks_is_escaped(encoding: str) -> None:
    output, errors, status = run(r"print('kat\u0142\U0001f600')", PYTHONIOENCODING=encoding)
    expected = "kat\u0142\U0001f600\n" if encoding == "utf-8" else "kat\\u0142\\U0001f600\n"
    assert (output, errors, status) == (expected, "", 0)


def test_name_that_is_not_utf_8_is_escaped() -> None:
    output, errors, status = run(r"print('cat\udcff.jpg')")
    assert (output, errors, status) == ("cat\\udcff.jpg\n", "", 0)
