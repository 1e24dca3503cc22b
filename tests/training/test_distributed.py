"""Training on JAX in several processes and on several devices gives the losses of one process."""

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from stages.training.distributed import ADDRESS, PROCESS
from tests.repository import Repository, wait_until

TRAIN = [sys.executable, "-m", "stages.train", "simple_cnn"]
StartTwo = Callable[[], list[subprocess.Popen[bytes]]]


@pytest.fixture
def start_two(clone: Repository, tmp_path: Path) -> Iterator[StartTwo]:
    """A function that starts processes 0 and 1 of a training run, each with a log file.

    They are killed at the end of the test.
    """
    started: list[subprocess.Popen[bytes]] = []

    def start() -> list[subprocess.Popen[bytes]]:
        address = f"127.0.0.1:{free_port()}"
        processes = [
            clone.start(
                *TRAIN,
                log=tmp_path / f"{process}.log",
                KERAS_BACKEND="jax",
                KERAS_DISTRIBUTION_NUM_PROCESSES="2",
                **{ADDRESS: address, PROCESS: str(process)},
            )
            for process in (0, 1)
        ]
        started.extend(processes)
        return processes

    yield start
    for process in started:
        process.kill()
        process.wait()


def free_port() -> int:
    """A port that no other process listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def losses(repository: Repository) -> np.ndarray:
    """Training and validation loss of each epoch, (epochs, 2)."""
    folder = repository.path / "metrics/curves/simple_cnn/plots/metrics"
    columns = [np.loadtxt(folder / f"{x}.tsv", skiprows=1) for x in ("train_loss", "val_loss")]
    return np.stack([column[:, 1] for column in columns], axis=1)


def read_log(folder: Path, process: int) -> str:
    """The output of one process so far."""
    return (folder / f"{process}.log").read_text(errors="replace")


def test_two_processes_and_two_devices_give_the_losses_of_one(
    clone: Repository, tmp_path: Path, start_two: StartTwo
) -> None:
    clone.set_params("epochs=2")
    clone.check(*TRAIN, KERAS_BACKEND="jax")
    expected = losses(clone)
    assert len(expected) == 2
    for process in start_two():
        assert process.wait(timeout=120) == 0, read_log(tmp_path, 0)
    np.testing.assert_allclose(losses(clone), expected, atol=1e-4)
    assert "wrote models/simple_cnn.keras" in read_log(tmp_path, 0)
    assert "wrote" not in read_log(tmp_path, 1)  # only the main process writes
    # A model trained on JAX can be evaluated on TensorFlow.
    output = clone.check(sys.executable, "-m", "stages.evaluate", "simple_cnn")
    assert "test accuracy" in output

    two_devices = "--xla_force_host_platform_device_count=2"
    clone.check(*TRAIN, KERAS_BACKEND="jax", XLA_FLAGS=two_devices)
    np.testing.assert_allclose(losses(clone), expected, atol=1e-4)


def test_killing_one_process_ends_the_other_and_the_next_run_resumes(
    clone: Repository, tmp_path: Path, start_two: StartTwo
) -> None:
    clone.set_params("epochs=60")
    main_log = tmp_path / "0.log"
    processes = start_two()
    checkpoint = clone.path / "models/checkpoints/simple_cnn/epoch-000002.npz"
    wait_until(checkpoint.exists, processes[0], main_log)
    for killed, number in ((0, signal.SIGKILL), (1, signal.SIGTERM)):
        other = 1 - killed
        processes[killed].send_signal(number)
        if number == signal.SIGTERM:
            assert processes[killed].wait(timeout=10) == 128 + number
            assert read_log(tmp_path, killed).endswith("interrupted: run it again to resume\n")
        assert processes[other].wait(timeout=60) not in (None, 0)
        log = read_log(tmp_path, other)
        assert "another process has ended" in log
        assert "Traceback" not in log

        processes = start_two()
        # Until it has trained an epoch more.
        wait_until(lambda: "val_loss" in read_log(tmp_path, 0), processes[0], main_log)
        assert "resuming simple_cnn after epoch" in read_log(tmp_path, 0)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({ADDRESS: "127.0.0.1:1"}, "only JAX trains in several processes; set KERAS_BACKEND=jax"),
        ({ADDRESS: "127.0.0.1:1", "KERAS_BACKEND": "jax"}, "set it, KERAS_DISTRIBUTION_NUM"),
        (
            {"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
            "batch_size: 127: a batch of 127 of the 180 images cannot be divided among 2 devices",
        ),
    ],
    ids=["several processes on TensorFlow", "incomplete environment", "indivisible batch"],
)
def test_invalid_distribution_ends_in_one_line(
    clone: Repository, environment: dict[str, str], message: str
) -> None:
    clone.set_params("batch_size=127")
    result = clone.run(*TRAIN, **environment)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
