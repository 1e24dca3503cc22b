"""A small repository with five trained models, shared by the tests, and cheap copies of it."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.support.files import sha256

ROOT = Path(__file__).parent.parent
# In place of networks that take a minute to trace; test_architectures.py trains the real ones.
SMALL_NETWORK = """import keras


def build({signature}) -> keras.Model:
    {body}
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
"""
CURVES = [
    f"plots/metrics/{x}.tsv" for x in ("train_accuracy", "train_loss", "val_accuracy", "val_loss")
]
REAL_RESULTS = ("data/evaluations/", "dvc.lock", "metrics/")
LARGE = 100_000  # bytes; DVC's outputs of that size are protected, so copies may share them


def training_results(model: str) -> list[str]:
    """What a training leaves: the model and its curves."""
    curves = [f"metrics/curves/{model}/{file}" for file in ("metrics.json", *CURVES)]
    return [f"models/{model}.keras", *curves]


@dataclass
class Repository:
    """A repository in a temporary folder, driven from outside as a user would."""

    path: Path

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the repository's root; its exit status is the caller's to look at."""
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
        """Run a command that must succeed and give what it printed."""
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
        """How many epochs a model's learning curves have, all of them as many."""
        files = (self.path / "metrics/curves" / model / file for file in CURVES)
        (epochs,) = {file.read_text().count("\n") - 1 for file in files}
        return epochs

    def set_params(self, **values: object) -> None:
        """Set keys of params.yaml; a dotted key reaches into a mapping (`a.b` is spelt `a__b`)."""
        file = self.path / "params.yaml"
        params = yaml.safe_load(file.read_text())
        for key, value in values.items():
            *parents, last = key.split("__")
            section = params
            for parent in parents:
                section = section[parent]
            section[last] = value
        file.write_text(yaml.safe_dump(params, sort_keys=False))

    def changed_stages(self) -> set[str]:
        """The stages whose own inputs have changed, as `dvc status` tells."""
        return set(re.findall(r"^([\w@]+):$", self.check("dvc", "status"), re.MULTILINE))

    def stages_run(self, *command: str) -> list[str]:
        """Run a dvc command and give the stages it ran, in order."""
        return re.findall(r"Running stage '([\w@]+)'", self.check("dvc", *command))


def in_keras(script: str, folder: Path) -> Any:
    """What a script that imports Keras prints last, read as JSON."""
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
    reached: Callable[[], bool],
    process: subprocess.Popen[bytes],
    log: Path,
    seconds: float = 120,
) -> None:
    """Wait at most that long until `reached`, while the process that writes `log` runs."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert process.poll() is None, f"it has ended:\n{log.read_text(errors='replace')}"
        assert time.monotonic() < deadline
        time.sleep(0.001)


def fresh_copy(target: Path) -> Repository:
    """The project's files, without outputs, in a Git repository of their own."""
    listed = subprocess.check_output(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True
    )
    for name in listed.split("\0"):
        if name and (ROOT / name).is_file() and not name.startswith(REAL_RESULTS):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    architectures = target / "stages/architectures"
    for model, signature, body in (
        ("resnet50_scratch", "stem_stride", "assert stem_stride == 4"),
        ("resnet50_finetune", "weights, preprocessing, input_size", "assert weights.is_file()"),
        ("fast94", "pictures", "assert pictures.shape == (180, 32, 32, 3)"),
    ):
        network = SMALL_NETWORK.format(signature=f"*, {signature}", body=body)
        (architectures / f"{model}.py").write_text(network)
    repository = Repository(target)
    repository.check("git", "init", "--quiet", "--initial-branch=main")
    repository.check("git", "config", "user.name", "tests")
    repository.check("git", "config", "user.email", "tests@example.org")
    repository.set_params(dataset="sample", sample__pictures_per_batch=40, epochs=1, batch_size=50)
    repository.set_params(models__fast94__batch_size=50)
    repository.check("git", "add", "--all")
    repository.check("git", "commit", "--quiet", "--message", "a small copy")
    return repository


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository in which `dvc repro` has run once, on the sample; tests only read it."""
    repository = fresh_copy(tmp_path_factory.mktemp("trained"))
    repository.first_run = repository.check("dvc", "repro")  # type: ignore[attr-defined]
    repository.check("git", "add", "--all")
    repository.check("git", "commit", "--quiet", "--message", "trained")
    return repository


@pytest.fixture
def clone(trained: Repository, tmp_path: Path) -> Repository:
    """A copy of the trained repository for one test to change."""

    def link_large(source: str, target: str) -> str:
        status = Path(source).stat()
        if status.st_size > LARGE and not status.st_mode & stat.S_IWUSR:
            os.link(source, target)
        else:
            shutil.copy2(source, target)
        return target

    shutil.copytree(trained.path, tmp_path / "clone", copy_function=link_large, symlinks=True)
    return Repository(tmp_path / "clone")
