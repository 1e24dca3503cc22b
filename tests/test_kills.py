"""Killed at random moments, the pipeline resumes and ends with the same bytes.

The real `dvc` runs it; `pytest -s` prints what was killed when.
"""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import yaml
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from voluptuous import Invalid

from tests.params_edits import PARAMS
from tests.repository import Repository, training_results, wait_until

EPOCHS = 60
RESULTS = [*training_results("simple_cnn"), "metrics/simple_cnn.json"]
RESULTS += ["data/source.json", "data/train/x.npy", "data/test/y.npy"]
REPRO = ("dvc", "repro", "evaluate@simple_cnn")
TRAIN_ALONE = ("dvc", "repro", "--single-item", "train@simple_cnn")


def kill_stage(dvc: subprocess.Popen[bytes]) -> None:
    """Kill the stage's processes, but not `dvc` itself."""
    for child in psutil.Process(dvc.pid).children(recursive=True):
        child.kill()


def kill_all(dvc: subprocess.Popen[bytes]) -> None:
    """Kill the process group, if anything of it still runs."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(dvc.pid, signal.SIGKILL)


def interrupt(dvc: subprocess.Popen[bytes]) -> None:
    """Send what Ctrl-C in a terminal sends."""
    os.killpg(dvc.pid, signal.SIGINT)


def terminate(dvc: subprocess.Popen[bytes]) -> None:
    """Send what a machine that shuts down sends."""
    os.killpg(dvc.pid, signal.SIGTERM)


class Killer:
    """Runs `dvc repro` repeatedly and kills each run at a random moment."""

    def __init__(self, repository: Repository, log: Path) -> None:
        self.repository, self.log = repository, log
        self.random = random.Random()
        self.kills = 0

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def repair_dvc(self) -> None:
        """Repair what DVC 3.67 does not write atomically, as docs/trust.md says."""
        locks = self.repository.path / ".dvc/tmp/rwlock"
        try:
            json.loads(locks.read_text())
        except FileNotFoundError:
            pass
        except json.JSONDecodeError as error:
            print(f".dvc/tmp/rwlock was incomplete: {error}")
            locks.unlink()
        try:
            content = yaml.safe_load((self.repository.path / "dvc.lock").read_text())
            COMPILED_LOCKFILE_SCHEMA(content)
        except (yaml.YAMLError, Invalid) as error:
            print(f"dvc.lock was incomplete: {error}")
            self.repository.check("git", "checkout", "--quiet", "dvc.lock")

    def run(
        self,
        condition: Callable[[], bool],
        max_delay: float,
        kill: Callable[[subprocess.Popen[bytes]], None],
        command: tuple[str, ...] = REPRO,
    ) -> str:
        """Start a command, kill it a random delay after a condition; returns its output."""
        self.repair_dvc()
        self.started = time.time()
        process = self.repository.start(*command, log=self.log)
        wait_until(condition, process, self.log)
        delay = self.random.uniform(0, max_delay)
        time.sleep(delay)
        if process.poll() is None:
            self.kills += 1
            running = psutil.Process(process.pid).children(recursive=True)
            kill(process)
            _, alive = psutil.wait_procs(running, timeout=60)
            assert not alive
        process.wait(timeout=60)
        output = self.output()
        print(f"{kill.__name__} after {delay:.3f} s, output ends with {output[-60:]!r}")
        return output

    def printed(self, text: str) -> Callable[[], bool]:
        return lambda: text in self.output()

    def epochs_begun(self, count: int) -> Callable[[], bool]:
        """A condition: that many epochs have begun."""
        return lambda: self.output().count("Epoch ") >= count

    def being_written(self, pattern: str) -> Callable[[], bool]:
        """A condition: this run has started to write such a file."""

        def condition() -> bool:
            for path in self.repository.path.glob(pattern):
                with contextlib.suppress(FileNotFoundError):  # it is renamed once it is complete
                    if path.stat().st_mtime > self.started:  # not left by an earlier kill
                        return True
            return False

        return condition


def completed_epochs(output: str) -> int:
    """The number of epochs before the last one that began."""
    return max([int(n) for n in re.findall(r"Epoch (\d+)/", output)], default=1) - 1


def test_pipeline_killed_at_random_moments_ends_with_the_same_bytes(
    clone: Repository, tmp_path: Path
) -> None:
    clone.set_params(f"epochs={EPOCHS}", "sample.seed=7")
    clone.check(*REPRO)
    expected = clone.digests(RESULTS)
    clone.check("git", "checkout", "--quiet", "--", "dvc.lock")  # so that every stage runs again
    for name in RESULTS:
        (clone.path / name).unlink()
    clone.check("rm", "-rf", ".dvc/cache/runs")

    killer = Killer(clone, tmp_path / "log")
    for stage in ("settings", "fetch", "preprocess"):
        killer.repair_dvc()
        clone.check("dvc", "repro", "fetch")
        command = ("dvc", "repro", "--force", "--single-item", stage)
        enough = killer.kills + 4
        while killer.kills < enough:  # a run may end before its kill
            killer.run(killer.printed("Running stage"), 0.6, kill_all, command)

    lost = []  # completed epochs, by each kill
    completed = 0
    for number in range(8):
        kill = (kill_all, kill_stage, interrupt, terminate)[number % 4]
        if number < 6:
            output = killer.run(killer.epochs_begun(killer.random.randint(1, 4)), 0.1, kill)
        else:
            output = killer.run(killer.being_written("models/checkpoints/*/.partial-*"), 0, kill)
        assert "Traceback" not in output
        resumed = re.search(r"resuming simple_cnn after epoch (\d+) of", output)
        if completed > 1:
            assert resumed, output
        lost.append(completed - int(resumed[1]) if resumed else completed)
        completed = max(completed, completed_epochs(output))
    assert completed > 3
    assert max(lost) <= 1

    killer.run(killer.being_written("models/.*simple_cnn.keras"), 0.02, kill_all)
    killer.run(killer.printed("Running stage 'evaluate@simple_cnn'"), 5, kill_all)
    killer.repair_dvc()
    clone.check(*REPRO)
    assert clone.digests(RESULTS) == expected
    assert "evaluate@simple_cnn" not in clone.changed_stages()
    assert not list((clone.path / "models/checkpoints").glob("simple_cnn"))
    print(f"{killer.kills} kills, every result byte-identical")
    assert killer.kills >= 20


def test_killed_experiment_resumes(clone: Repository, tmp_path: Path) -> None:
    command = ("dvc", "exp", "run", "--name", "long", "-S", f"epochs={EPOCHS}", "train@simple_cnn")
    killer = Killer(clone, tmp_path / "log")
    killer.run(
        killer.being_written("models/checkpoints/simple_cnn/epoch-000003.npz"), 0, kill_all, command
    )
    # What `dvc exp show` reads during training.
    live = json.loads((clone.path / "metrics/curves/simple_cnn/metrics.json").read_text())
    assert live["step"] >= 3
    assert 0 <= live["val_accuracy"] <= 1
    assert "resuming simple_cnn after epoch" in clone.check(*command)
    assert clone.epochs_recorded("simple_cnn") == EPOCHS


def test_killed_training_on_features_resumes_to_the_same_bytes_without_computing_them_again(
    clone: Repository, tmp_path: Path
) -> None:
    entry = PARAMS["models"]["resnet50_features"] | {"min_batches": 0, "min_validation_images": 5}
    clone.set_params(f"models.resnet50_features={json.dumps(entry)}", f"epochs={EPOCHS}")
    computing = [f"computing the features of {count} images" for count in (195, 5)]
    repro = ("dvc", "repro", "train@resnet50_features")
    output = clone.check(*repro)
    assert all(line in output for line in computing)
    results = training_results("resnet50_features")
    expected = clone.digests(results)

    again = (*repro, "--force", "--single-item")
    killer = Killer(clone, tmp_path / "log")
    output = killer.run(killer.epochs_begun(3), 0, kill_all, again)
    assert all(line in output for line in computing)
    killer.repair_dvc()
    output = clone.check(*again)
    assert "resuming resnet50_features after epoch" in output
    assert "computing the features" not in output
    assert clone.digests(results) == expected
    assert not (clone.path / "models/checkpoints/resnet50_features").exists()


@contextlib.contextmanager
def training(repository: Repository, log: Path, text: str) -> Iterator[subprocess.Popen[bytes]]:
    """A `dvc repro` of a train stage that has printed a text; killed at the end, with its stage."""
    dvc = repository.start(*TRAIN_ALONE, log=log)
    try:
        wait_until(lambda: text in log.read_text(), dvc, log)
        yield dvc
    finally:
        kill_all(dvc)
        dvc.wait()


def test_second_repro_of_a_stage_names_the_process_of_the_first(
    clone: Repository, tmp_path: Path
) -> None:
    clone.apply_params("epochs=10000")  # does not end during the test
    with training(clone, tmp_path / "log", "Epoch 1/") as first:
        second = clone.run(*TRAIN_ALONE)
        assert second.returncode != 0
        assert "is busy, it is being blocked by" in second.stderr
        assert f"(PID {first.pid})" in second.stderr


def test_training_whose_dvc_was_killed_keeps_its_stage_locked(
    clone: Repository, tmp_path: Path
) -> None:
    clone.apply_params("epochs=10000")
    with training(clone, tmp_path / "log", "Epoch 3/") as dvc:
        stage = psutil.Process(dvc.pid).children(recursive=True)[-1]
        dvc.kill()
        dvc.wait()
        second = clone.run(*TRAIN_ALONE)
        assert second.returncode != 0
        assert f"error: train@simple_cnn: already running (pid {stage.pid})" in second.stderr
        assert "Traceback" not in second.stderr

        stage.terminate()  # as the message says
        psutil.wait_procs([stage], timeout=60)
    with training(clone, tmp_path / "log", "resuming simple_cnn after epoch"):
        pass
