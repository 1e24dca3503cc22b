"""Kill and resume training runs of the large networks: `make kill-large`.

Trains resnet50_scratch and fast94 on the sample three times each with `dvc repro`: undisturbed,
again with `--force`, and killed twice. Prints whether the results are byte-identical, and what a
checkpoint costs. Exits with status 1 if any result differs.
"""

import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from stages.common import command_line
from tests.repository import Repository, copy_project, initialize, training_results, wait_until

MODELS = ["resnet50_scratch", "fast94"]
CHECKPOINT_COST = """
import sys, time
from pathlib import Path
from stages.common import params, paths
from stages.dataset.splits import Split
from stages.training import network, optimizer
from stages.training.checkpoints import Checkpoints

settings = params.load()
model = network.build(sys.argv[1], settings, Split(paths.TRAIN), 10)
optimizer.compile_for_training(model, settings.model(sys.argv[1]), steps=1)
variables = [*model.variables, *model.optimizer.variables]
checkpoints = Checkpoints(Path("cost"), "fingerprint", variables)

for epoch in range(1, 6):
    started = time.monotonic()
    checkpoints.history.append({"epoch": epoch})
    checkpoints.save()
    seconds = time.monotonic() - started
    sizes = [path.stat().st_size for path in Path("cost").iterdir()]
    print(f"checkpoint {epoch}: {seconds:.2f} s, {len(sizes)} files, {sum(sizes) / 1e6:.0f} MB")
checkpoints.clear()
"""


def kill_after(repository: Repository, model: str, checkpoint: str, delay: float) -> str:
    """Kill `dvc repro` and its children `delay` seconds after a checkpoint; returns its output."""
    log = repository.path / "log"
    process = repository.start("dvc", "repro", f"train@{model}", log=log)
    file = repository.path / f"models/checkpoints/{model}/{checkpoint}"
    wait_until(file.exists, process, log, seconds=600)
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return log.read_text()


def try_model(repository: Repository, model: str) -> bool:
    """Whether training runs of a model, undisturbed and killed, end with the same bytes."""
    repro, results = ("dvc", "repro", f"train@{model}"), training_results(model)
    print(f"\n{model}", flush=True)
    repository.check(*repro)
    expected = repository.digests(results)
    timing = (repository.path / f"metrics/provenance/{model}.json").read_text()
    print(f"seconds per epoch: {json.loads(timing)['epoch_seconds']}", flush=True)

    repository.check(*repro, "--force")
    repeated = repository.digests(results) == expected
    print(f"trained again: {'the same' if repeated else 'OTHER'} bytes", flush=True)

    (repository.path / "dvc.lock").unlink()
    shutil.rmtree(repository.path / ".dvc/cache/runs")
    for checkpoint in ("epoch-000001.npz", "epoch-000003.npz"):
        delay = random.uniform(0, 5)
        output = kill_after(repository, model, checkpoint, delay)
        resumed = re.search("resuming.*", output)
        print(f"{resumed[0] if resumed else 'started'}; killed {delay:.1f} s after {checkpoint}")
    output = repository.check(*repro)
    print(re.findall("resuming.*", output), flush=True)
    resumed_equal = repository.digests(results) == expected
    print(f"killed and resumed: {'the same' if resumed_equal else 'OTHER'} bytes", flush=True)
    print(repository.check(sys.executable, "-c", CHECKPOINT_COST, model))
    return repeated and resumed_equal


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        copy_project(Path(folder))
        repository = initialize(Path(folder))
        repository.set_params("sample.images_per_file=320", "batch_size=128", "epochs=4")
        repository.set_params("models.fast94.batch_size=128", "models.fast94.epochs=4")
        results = [try_model(repository, model) for model in MODELS]
        sys.exit(not all(results))


if __name__ == "__main__":
    command_line.run_stage(main, "benchmarks.kill_large", __doc__)
