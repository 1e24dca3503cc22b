"""Killed at random moments, the pipeline goes on and ends with the same bytes.

The moments are those of a real `dvc`; `pytest -s` prints what was killed when.
"""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import yaml

from tests.conftest import Repository, training_results, wait_until

EPOCHS = 100
RESULTS = [*training_results("simple_cnn"), "metrics/simple_cnn.json"]
RESULTS += ["data/cifar-10-python.tar.gz", "data/train/x.npy", "data/test/y.npy"]
REPRO = ("dvc", "repro", "evaluate@simple_cnn")
TRAIN_ALONE = ("dvc", "repro", "--single-item", "train@simple_cnn")


def kill_stage(dvc: subprocess.Popen[bytes]) -> None:
    """Kill what `dvc` runs, the stage's processes, and leave `dvc` itself."""
    for child in psutil.Process(dvc.pid).children(recursive=True):
        child.kill()


def kill_all(dvc: subprocess.Popen[bytes]) -> None:
    os.killpg(dvc.pid, signal.SIGKILL)


def interrupt(dvc: subprocess.Popen[bytes]) -> None:
    """What Ctrl-C in a terminal does."""
    os.killpg(dvc.pid, signal.SIGINT)


class Killer:
    """Runs `dvc repro` again and again, each time killed at a moment of its own."""

    def __init__(self, repository: Repository, log: Path) -> None:
        self.repository, self.log = repository, log
        self.random = random.Random()
        self.kills = 0

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def mend_lock(self) -> None:
        """DVC 3.67 does not write dvc.lock atomically; do what the README says to do then."""
        try:
            content = yaml.safe_load((self.repository.path / "dvc.lock").read_text())
        except yaml.YAMLError:
            content = None
        if not isinstance(content, dict) or "stages" not in content:
            print("dvc.lock was half-written")
            self.repository.check("git", "checkout", "--quiet", "dvc.lock")

    def run(
        self,
        reached: Callable[[], bool],
        longest_delay: float,
        kill: Callable[[subprocess.Popen[bytes]], None],
        command: tuple[str, ...] = REPRO,
    ) -> str:
        """Start, wait until `reached` and a random while, kill, and give the output."""
        self.mend_lock()
        self.started = time.time()
        process = self.repository.start(*command, log=self.log)
        wait_until(reached, process, self.log)
        delay = self.random.uniform(0, longest_delay)
        time.sleep(delay)
        if process.poll() is None:
            self.kills += 1
            running = psutil.Process(process.pid).children(recursive=True)
            kill(process)
            _, alive = psutil.wait_procs(running, timeout=60)
            assert not alive
        process.wait(timeout=60)
        output = self.output()
        print(f"{kill.__name__} after {delay:.3f} s, the last output was {output[-60:]!r}")
        return output

    def says(self, text: str) -> Callable[[], bool]:
        return lambda: text in self.output()

    def epochs(self, count: int) -> Callable[[], bool]:
        """Whether that many epochs have begun."""
        return lambda: self.output().count("Epoch ") >= count

    def written(self, pattern: str) -> Callable[[], bool]:
        """Whether such a file is being written now; an earlier kill may have left one."""

        def being_written() -> bool:
            for path in self.repository.path.glob(pattern):
                with contextlib.suppress(FileNotFoundError):  # it is renamed when it is whole
                    if path.stat().st_mtime > self.started:
                        return True
            return False

        return being_written


def finished_epochs(output: str) -> int:
    return max([int(n) for n in re.findall(r"Epoch (\d+)/", output)], default=1) - 1


def test_killed_anywhere_the_pipeline_ends_with_the_same_bytes(
    clone: Repository, tmp_path: Path
) -> None:
    clone.set_params(epochs=EPOCHS, sample__seed=7)
    clone.check(*REPRO)
    expected = clone.digests(RESULTS)
    clone.check("git", "checkout", "--quiet", "--", "dvc.lock")  # all of it has to run again
    for name in RESULTS:
        (clone.path / name).unlink()
    clone.check("rm", "-rf", ".dvc/cache/runs")

    killer = Killer(clone, tmp_path / "log")
    for stage in ("fetch", "preprocess"):
        killer.mend_lock()
        clone.check("dvc", "repro", "fetch")
        command = ("dvc", "repro", "--force", "--single-item", stage)
        until = killer.kills + 3
        while killer.kills < until:  # it may be done before its kill comes
            killer.run(killer.says("Running stage"), 0.6, kill_all, command)

    redone = []
    finished = 0
    for number in range(14):
        kill = (kill_all, kill_stage, interrupt)[number % 3]
        if number < 10:
            output = killer.run(killer.epochs(killer.random.randint(1, 4)), 0.1, kill)
        else:
            output = killer.run(killer.written("models/checkpoints/*/.partial-*"), 0, kill)
        assert "Traceback" not in output
        resumed = re.search(r"resuming simple_cnn after epoch (\d+) of", output)
        if finished > 1:
            assert resumed, output
        redone.append(finished - int(resumed[1]) if resumed else finished)
        finished = max(finished, finished_epochs(output))
    assert finished > 3  # the kills hit a training that got somewhere
    assert max(redone) <= 1

    killer.run(killer.written("models/.*simple_cnn.keras"), 0.02, kill_all)
    killer.run(killer.says("Running stage 'evaluate@simple_cnn'"), 5, kill_all)
    killer.mend_lock()
    clone.check(*REPRO)
    assert clone.digests(RESULTS) == expected
    assert "evaluate@simple_cnn" not in clone.changed_stages()
    assert not list((clone.path / "models/checkpoints").glob("simple_cnn"))
    print(f"{killer.kills} kills, every result byte-identical")
    assert killer.kills >= 20


def test_a_killed_experiment_resumes(clone: Repository, tmp_path: Path) -> None:
    command = ("dvc", "exp", "run", "--name", "long", "-S", f"epochs={EPOCHS}", "train@simple_cnn")
    killer = Killer(clone, tmp_path / "log")
    killer.run(
        killer.written("models/checkpoints/simple_cnn/epoch-000003.npz"), 0, kill_all, command
    )
    # While it trains, `dvc exp show` reads this.
    live = json.loads((clone.path / "metrics/curves/simple_cnn/metrics.json").read_text())
    assert live["step"] >= 3
    assert 0 <= live["simple_cnn"]["val_accuracy"] <= 1
    assert "resuming simple_cnn after epoch" in clone.check(*command)
    assert clone.epochs_recorded("simple_cnn") == EPOCHS


def start_training(repository: Repository, log: Path, epoch: int) -> subprocess.Popen[bytes]:
    """Start a long `dvc repro` of the training and wait until that epoch has begun."""
    repository.set_params(epochs=EPOCHS)
    dvc = repository.start(*TRAIN_ALONE, log=log)
    wait_until(lambda: f"Epoch {epoch}/" in log.read_text(), dvc, log)
    return dvc


def test_of_two_repros_of_one_stage_the_second_says_who_holds_it(
    clone: Repository, tmp_path: Path
) -> None:
    first = start_training(clone, tmp_path / "log", epoch=1)
    second = clone.run(*TRAIN_ALONE)
    assert second.returncode != 0
    assert "is busy, it is being blocked by" in second.stderr
    assert f"(PID {first.pid})" in second.stderr
    assert first.wait(timeout=120) == 0
    assert "train@simple_cnn" not in clone.changed_stages()


def test_a_training_whose_dvc_was_killed_keeps_the_next_one_out(
    clone: Repository, tmp_path: Path
) -> None:
    dvc = start_training(clone, tmp_path / "log", epoch=3)
    stage = psutil.Process(dvc.pid).children(recursive=True)[-1]
    dvc.kill()
    dvc.wait()
    second = clone.run(*TRAIN_ALONE)
    assert second.returncode != 0
    assert f"error: train@simple_cnn: process {stage.pid} is at it already" in second.stderr
    assert "Traceback" not in second.stderr

    stage.terminate()  # what the line says to do
    psutil.wait_procs([stage], timeout=60)
    assert "resuming simple_cnn after epoch" in clone.check(*TRAIN_ALONE)
    assert "train@simple_cnn" not in clone.changed_stages()
