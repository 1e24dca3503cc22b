"""Kill trainings of the real large networks and resume them: `make kill-large`.

Trains resnet50_scratch and fast94 on the generated sample three times each through the real `dvc`:
undisturbed, again with `--force`, and killed twice. Prints whether the bytes are equal and what a
checkpoint costs.
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

from tests.conftest import ROOT, Repository, fresh_copy, training_results, wait_until

MODELS = ["resnet50_scratch", "fast94"]
COST = """
import sys, time
from pathlib import Path
from stages.support import network, optimization, params, paths
from stages.support.arrays import Split
from stages.support.checkpoint import Checkpoints

settings = params.load()
model = network.new(sys.argv[1], settings, Split(paths.TRAIN))
optimization.compile_to_train(model, settings.model(sys.argv[1]), 1, 1)
checkpoints = Checkpoints(Path("cost"), "inputs", [*model.variables, *model.optimizer.variables])

for epoch in range(1, 6):
    started = time.monotonic()
    checkpoints.save([{"epoch": n} for n in range(epoch)])
    seconds = time.monotonic() - started
    sizes = [path.stat().st_size for path in Path("cost").iterdir()]
    print(f"checkpoint {epoch}: {seconds:.2f} s, {len(sizes)} files, {sum(sizes) / 1e6:.0f} MB")
checkpoints.clear()
"""


def kill_after(repository: Repository, model: str, checkpoint: str, delay: float) -> str:
    """Start `dvc repro`, kill it with all its children `delay` seconds after that checkpoint."""
    log = repository.path / "log"
    process = repository.start("dvc", "repro", f"train@{model}", log=log)
    saved = repository.path / f"models/checkpoints/{model}/{checkpoint}"
    wait_until(saved.exists, process, log, seconds=600)
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return log.read_text()


def try_model(repository: Repository, model: str) -> bool:
    """Whether a model's file and curves are the same, trained again and killed twice."""
    repro, results = ("dvc", "repro", f"train@{model}"), training_results(model)
    print(f"\n{model}", flush=True)
    repository.check(*repro)
    expected = repository.digests(results)
    timing = (repository.path / f"metrics/timings/{model}.json").read_text()
    print(f"seconds an epoch: {json.loads(timing)['epoch_seconds']}", flush=True)

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
    print(repository.check(sys.executable, "-c", COST, model))
    return repeated and resumed_equal


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        repository = fresh_copy(Path(folder))
        for model in MODELS:
            source = f"stages/architectures/{model}.py"
            shutil.copy2(ROOT / source, repository.path / source)
        repository.set_params(sample__pictures_per_batch=320, batch_size=128, epochs=4)
        repository.set_params(models__fast94__batch_size=128)
        results = [try_model(repository, model) for model in MODELS]
        sys.exit(not all(results))


if __name__ == "__main__":
    main()
