"""A small repository with the pipeline, driven from outside as a user would."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stages.common.hashing import sha256

ROOT = Path(__file__).parent.parent
SMALL_NETWORKS = Path(__file__).parent / "small_networks"
MODELS = [
    "simple_cnn",
    "resnet50_finetune",
    "fast94",
]  # one of each kind: plain, pretrained, own recipe
CURVES = [
    f"plots/metrics/{x}.tsv" for x in ("train_accuracy", "train_loss", "val_accuracy", "val_loss")
]
RECORDED_RUN = ("dvc.lock", "metrics/")


def training_results(model: str) -> list[str]:
    """The files that a training run writes: the model and its curves."""
    curves = [f"metrics/curves/{model}/{file}" for file in ("metrics.json", *CURVES)]
    return [f"models/{model}.keras", *curves]


@dataclass
class Repository:
    """A Git and DVC repository in a temporary folder."""

    path: Path

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the repository's root, whatever its exit status."""
        return subprocess.run(
            command,
            cwd=self.path,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def check(self, *command: str, **environment: str) -> str:
        """Run a command that must succeed; returns its standard output."""
        result = self.run(*command, **environment)
        assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
        return result.stdout

    def start(self, *command: str, log: Path, **environment: str) -> subprocess.Popen[bytes]:
        """Start a command in a process group of its own, with its output in `log`."""
        with log.open("wb") as file:
            return subprocess.Popen(
                command,
                cwd=self.path,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def digests(self, files: Iterable[str]) -> dict[str, str]:
        """The SHA-256 of each of these files."""
        return {name: sha256(self.path / name) for name in files}

    def epochs_recorded(self, model: str) -> int:
        """The number of epochs in each of a model's learning curves."""
        files = (self.path / "metrics/curves" / model / file for file in CURVES)
        (epochs,) = {file.read_text().count("\n") - 1 for file in files}
        return epochs

    def set_params(self, *assignments: str) -> None:
        """Set keys of params.yaml, spelt as in `dvc exp run -S`: "models.fast94.epochs=2"."""
        file = self.path / "params.yaml"
        params = yaml.safe_load(file.read_text())
        for assignment in assignments:
            key, value = assignment.split("=", 1)
            *parents, last = key.split(".")
            section = params
            for parent in parents:
                section = section[parent]
            section[last] = yaml.safe_load(value)
        file.write_text(yaml.safe_dump(params, sort_keys=False))

    def apply_params(self, *assignments: str) -> None:
        """Set keys of params.yaml, for stages that are then run without DVC."""
        self.set_params(*assignments)
        self.check(sys.executable, "-m", "stages.settings")

    def remove_other_models(self, kept: Iterable[str]) -> None:
        """Remove the entries of all other models from params.yaml."""
        file = self.path / "params.yaml"
        params = yaml.safe_load(file.read_text())
        for section in ("models", "notebook_accuracy"):
            entries = params[section]
            params[section] = {name: entries[name] for name in kept if name in entries}
        file.write_text(yaml.safe_dump(params, sort_keys=False))

    def changed_stages(self) -> set[str]:
        """The stages that `dvc status` lists as changed."""
        return set(re.findall(r"^([\w@]+):$", self.check("dvc", "status"), re.MULTILINE))

    def stages_run(self, *command: str) -> list[str]:
        """Run a dvc command; returns the stages it ran, in order."""
        return re.findall(r"Running stage '([\w@]+)'", self.check("dvc", *command))


def copy_project(target: Path) -> None:
    """Copy the project's files, without its recorded run."""
    git = ["git", "-c", "safe.directory=*"]  # in CI the clone may be another user's
    options = ["-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.check_output([*git, "ls-files", *options], cwd=ROOT, text=True)
    for name in files.split("\0"):
        if name and (ROOT / name).is_file() and not name.startswith(RECORDED_RUN):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def replace_large_networks(target: Path) -> None:
    """Replace the networks that take long to trace; test_architectures.py tests the real ones."""
    for file in SMALL_NETWORKS.glob("*.py"):
        shutil.copy2(file, target / "stages/architectures")


def initialize(target: Path) -> Repository:
    """Make a copy of the project a Git repository with settings for a fast run on the sample."""
    repository = Repository(target)
    repository.remove_other_models(MODELS)
    repository.check("git", "init", "--quiet", "--initial-branch=main")
    repository.check("git", "config", "user.name", "tests")
    repository.check("git", "config", "user.email", "tests@example.org")
    repository.set_params("dataset=sample", "sample.images_per_file=40", "epochs=1")
    repository.set_params("training.min_batches=0")  # the length of training is that of params.yaml
    repository.set_params("batch_size=50", "models.fast94.batch_size=50", "models.fast94.epochs=1")
    repository.check("git", "add", "--all")
    repository.check("git", "commit", "--quiet", "--message", "a small copy")
    return repository


def run_keras_script(script: str, folder: Path) -> Any:
    """Run a script that imports Keras; returns its last line of output, parsed as JSON."""
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def wait_until(
    condition: Callable[[], bool],
    process: subprocess.Popen[bytes],
    log: Path,
    seconds: float = 120,
) -> None:
    """Wait for a condition while the process that writes `log` runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"it has ended:\n{log.read_text(errors='replace')}"
        assert time.monotonic() < deadline
        time.sleep(0.001)
