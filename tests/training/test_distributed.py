"""Training on JAX in several processes and on several devices gives the losses of one process."""

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from stages.common.errors import StageError
from stages.common.quiet_keras import keras
from stages.dataset.splits import Split, scale
from stages.training import distributed, model_file
from stages.training.distributed import ADDRESS, PROCESS
from tests.repository import Repository, wait_until

StartTwo = Callable[[], list[subprocess.Popen[bytes]]]
# On one device, then on two; one process, as the import takes longest.
TRAIN_ON_DEVICES = """
import shutil
from pathlib import Path
from types import SimpleNamespace
from stages import train
from stages.common.quiet_keras import keras

join = train.distributed.initialize
for devices, function in (("one", lambda: (0, 1)), ("two", join)):
    train.distributed.initialize = function
    keras.backend.clear_session()
    train.main("simple_cnn")
    shutil.copytree("metrics/curves/simple_cnn", f"{devices}-device")
"""


@pytest.fixture
def jax_clone(clone: Repository) -> Repository:
    """A clone in which simple_cnn takes one short step per epoch."""
    clone.set_params("batch_size=2000", "epochs=3")
    clone.check(sys.executable, "-m", "stages.settings")
    return clone


@pytest.fixture
def start_two(jax_clone: Repository, tmp_path: Path) -> Iterator[StartTwo]:
    """A function that starts processes 0 and 1 of a training run; the test's end kills them."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> list[subprocess.Popen[bytes]]:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{listener.getsockname()[1]}"
        processes = [
            jax_clone.start(
                *(sys.executable, "-m", "stages.train", "simple_cnn"),
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


def losses(folder: Path) -> np.ndarray:
    """Training and validation loss of each epoch, (epochs, 2)."""
    files = [folder / f"plots/metrics/{x}.tsv" for x in ("train_loss", "val_loss")]
    return np.stack([np.loadtxt(file, skiprows=1)[:, 1] for file in files], axis=1)


def test_two_processes_and_two_devices_give_the_losses_of_one(
    jax_clone: Repository, tmp_path: Path, start_two: StartTwo
) -> None:
    two_devices = "--xla_force_host_platform_device_count=2"
    command = (sys.executable, "-c", TRAIN_ON_DEVICES)
    jax_clone.check(*command, KERAS_BACKEND="jax", XLA_FLAGS=two_devices)
    expected = losses(jax_clone.path / "one-device")
    assert expected.shape == (3, 2)
    np.testing.assert_allclose(losses(jax_clone.path / "two-device"), expected, atol=1e-4)

    model = jax_clone.path / "models/simple_cnn.keras"
    model.unlink()
    for process in start_two():
        assert process.wait(timeout=200) == 0, (tmp_path / "0.log").read_text()
    curves = jax_clone.path / "metrics/curves/simple_cnn"
    np.testing.assert_allclose(losses(curves), expected, atol=1e-4)
    assert "wrote models/simple_cnn.keras" in (tmp_path / "0.log").read_text()
    assert "wrote" not in (tmp_path / "1.log").read_text()  # only the main process writes

    # A model trained on JAX gives the same probabilities on TensorFlow.
    images = Split(jax_clone.path / "data/validation")
    x = scale(images.images(np.arange(images.count)))
    probabilities = model_file.load(model)(x).numpy()[np.arange(images.count), images.labels]
    assert -np.log(probabilities).mean() == pytest.approx(expected[-1, 1], abs=1e-4)


def test_killing_one_process_ends_the_other_and_the_next_run_resumes(
    jax_clone: Repository, tmp_path: Path, start_two: StartTwo
) -> None:
    jax_clone.set_params("epochs=100_000")
    jax_clone.check(sys.executable, "-m", "stages.settings")
    logs = [tmp_path / "0.log", tmp_path / "1.log"]
    processes = start_two()
    wait_until(lambda: logs[0].read_text().count("val_loss") > 1, processes[0], logs[0])
    for killed, number in ((0, signal.SIGKILL), (1, signal.SIGTERM)):
        other = 1 - killed
        processes[killed].send_signal(number)
        assert processes[killed].wait(timeout=10) == -number
        assert processes[other].wait(timeout=100) == 1
        log = logs[other].read_text(errors="replace")
        assert "another process has ended" in log
        assert "Traceback" not in log
        if killed == 0:
            processes = start_two()
            wait_until(lambda: "val_loss" in logs[0].read_text(), processes[0], logs[0])
            assert "resuming simple_cnn after epoch" in logs[0].read_text()


def test_invalid_distribution_ends_in_one_line(
    clone: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    incomplete = {ADDRESS: "127.0.0.1:1", "KERAS_BACKEND": "jax"}
    result = clone.run(sys.executable, "-m", "stages.train", "simple_cnn", **incomplete)
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {ADDRESS}=127.0.0.1:1: ")
    assert f"; set it, KERAS_DISTRIBUTION_NUM_PROCESSES and {PROCESS} in each" in result.stderr
    assert result.stderr.count("\n") == 1

    monkeypatch.setenv(ADDRESS, "127.0.0.1:1")
    with pytest.raises(StageError, match="only JAX trains in several processes; set"):
        distributed.initialize()
    devices = SimpleNamespace(device_mesh=SimpleNamespace(devices=np.arange(2)))
    monkeypatch.setattr(keras.distribution, "distribution", lambda: devices)
    distributed.check_divisible(180, 50)
    with pytest.raises(StageError, match=r"a batch of 127 of the 180 images cannot be divided amo"):
        distributed.check_divisible(180, 127)
