"""Training on JAX in several processes and on several devices: the losses of one."""

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Repository, wait_until

TRAIN = [sys.executable, "-m", "stages.train", "simple_cnn"]
Start = Callable[[], list[subprocess.Popen[bytes]]]
ADDRESS = "KERAS_DISTRIBUTION_JOB_ADDRESSES"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def start_two(alone: Repository, tmp_path: Path) -> Iterator[Start]:
    """Starts processes 0 and 1 of a training, each with a log; none outlives the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> list[subprocess.Popen[bytes]]:
        started[:] = two(alone, tmp_path)
        return started

    yield start
    for process in started:
        process.kill()
        process.wait()


def two(repository: Repository, logs: Path) -> list[subprocess.Popen[bytes]]:
    environment = {
        "KERAS_BACKEND": "jax",
        ADDRESS: f"127.0.0.1:{free_port()}",
        "KERAS_DISTRIBUTION_NUM_PROCESSES": "2",
    }
    return [
        repository.start(
            *TRAIN,
            log=logs / str(process),
            KERAS_DISTRIBUTION_PROCESS_ID=str(process),
            **environment,
        )
        for process in (0, 1)
    ]


def losses(repository: Repository) -> np.ndarray:
    """Training and validation loss of each epoch, (epochs, 2)."""
    folder = repository.path / "metrics/curves/simple_cnn/plots/metrics"
    columns = [np.loadtxt(folder / f"{x}.tsv", skiprows=1) for x in ("train_loss", "val_loss")]
    return np.stack([column[:, 1] for column in columns], axis=1)


def read(log: Path, process: int) -> str:
    return (log / str(process)).read_text(errors="replace")


@pytest.fixture(scope="module")
def alone(trained: Repository, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository whose simple_cnn one process has trained on JAX, two epochs of the sample."""
    path = tmp_path_factory.mktemp("jax") / "clone"
    trained.check("cp", "-a", str(trained.path), str(path))
    repository = Repository(path)
    repository.set_params(sample__pictures_per_batch=320, epochs=2, batch_size=128)
    for stage in ("fetch", "preprocess"):
        repository.check(sys.executable, "-m", f"stages.{stage}")
    repository.check(*TRAIN, KERAS_BACKEND="jax")
    return repository


def test_two_processes_give_the_losses_of_one(
    alone: Repository, tmp_path: Path, start_two: Start
) -> None:
    expected = losses(alone)
    assert len(expected) == 2
    processes = start_two()
    for process in processes:
        assert process.wait(timeout=120) == 0, read(tmp_path, 0)
    np.testing.assert_allclose(losses(alone), expected, atol=1e-4)
    assert "wrote models/simple_cnn.keras" in read(tmp_path, 0)
    assert "wrote" not in read(tmp_path, 1)  # one process writes
    # Whoever trained it, another backend can use it.
    assert "test accuracy" in alone.check(sys.executable, "-m", "stages.evaluate", "simple_cnn")


def test_two_devices_of_one_machine_give_the_losses_of_one(alone: Repository) -> None:
    expected = losses(alone)
    alone.check(*TRAIN, KERAS_BACKEND="jax", XLA_FLAGS="--xla_force_host_platform_device_count=2")
    np.testing.assert_allclose(losses(alone), expected, atol=1e-4)


@pytest.mark.parametrize("victim", [0, 1])
def test_killing_one_process_ends_the_other_and_the_next_run_resumes(
    alone: Repository, tmp_path: Path, start_two: Start, victim: int
) -> None:
    alone.set_params(epochs=60)
    alone.check("rm", "-rf", "models/checkpoints")
    processes = start_two()
    second = alone.path / "models/checkpoints/simple_cnn/epoch-000002.npz"
    wait_until(second.exists, processes[0], tmp_path / "0")
    processes[victim].kill()
    other = 1 - victim
    assert processes[other].wait(timeout=60) not in (None, 0)
    log = read(tmp_path, other)
    assert "another of the processes has ended" in log
    assert "Traceback" not in log

    processes = start_two()
    log_0 = tmp_path / "0"
    resumed = "resuming simple_cnn after epoch"
    wait_until(lambda: resumed in read(tmp_path, 0), processes[0], log_0)
    wait_until(lambda: "Epoch 4/" in read(tmp_path, 0), processes[0], log_0)


def test_a_wrong_environment_ends_in_one_line(alone: Repository) -> None:
    alone.set_params(batch_size=127)
    for environment, message in [
        ({ADDRESS: "127.0.0.1:1"}, "only JAX trains in several processes; set KERAS_BACKEND=jax"),
        ({ADDRESS: "127.0.0.1:1", "KERAS_BACKEND": "jax"}, "set it, KERAS_DISTRIBUTION_NUM"),
        (
            {"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
            "batch_size: 127: of 1440 pictures a batch has 127, which can't be dealt evenly to 2",
        ),
    ]:
        result = alone.run(*TRAIN, **environment)
        assert result.returncode == 1
        assert message in result.stderr
        assert "Traceback" not in result.stderr
