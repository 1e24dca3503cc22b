"""Kill a training of the real ResNet50 and resume it: `make kill-resnet50`, about ten minutes.

Trains resnet50_scratch on the generated sample three times through the real `dvc`: undisturbed,
again with `--force`, and killed twice. Prints whether the bytes are equal and what a checkpoint
costs.
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

MODEL = "resnet50_scratch"
REPRO = ("dvc", "repro", f"train@{MODEL}")
RESULTS = training_results(MODEL)
COST = """
import sys, time
from pathlib import Path
from stages.architectures import resnet50_scratch
from stages.support.checkpoint import Checkpoints
from stages.train import compile_model

model = resnet50_scratch.build()
compile_model(model, 0.001)
model.optimizer.build(model.trainable_variables)
checkpoints = Checkpoints(Path("cost"), "inputs", [*model.variables, *model.optimizer.variables])

for epoch in range(1, 6):
    started = time.monotonic()
    checkpoints.save([{"epoch": n} for n in range(epoch)])
    seconds = time.monotonic() - started
    sizes = [path.stat().st_size for path in Path("cost").iterdir()]
    print(f"checkpoint {epoch}: {seconds:.2f} s, {len(sizes)} files, {sum(sizes) / 1e6:.0f} MB")
checkpoints.clear()
"""


def kill_after(repository: Repository, checkpoint: str, delay: float) -> str:
    """Start `dvc repro`, kill it with all its children `delay` seconds after that checkpoint."""
    log = repository.path / "log"
    process = repository.start(*REPRO, log=log)
    saved = repository.path / f"models/checkpoints/{MODEL}/{checkpoint}"
    wait_until(saved.exists, process, log, seconds=600)
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return log.read_text()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        repository = fresh_copy(Path(folder))
        for name in ("resnet50_scratch", "resnet50_finetune"):
            source = f"stages/architectures/{name}.py"
            shutil.copy2(ROOT / source, repository.path / source)
        repository.set_params(sample__pictures_per_batch=320, batch_size=128, epochs=4)

        print(repository.check(*REPRO).splitlines()[-1], flush=True)
        expected = repository.digests(RESULTS)
        timing = (repository.path / f"metrics/timings/{MODEL}.json").read_text()
        print(f"seconds an epoch of 12 batches: {json.loads(timing)['epoch_seconds']}", flush=True)

        repository.check(*REPRO, "--force")
        repeated = repository.digests(RESULTS) == expected
        print(f"trained again: {'the same' if repeated else 'OTHER'} bytes", flush=True)

        (repository.path / "dvc.lock").unlink()
        shutil.rmtree(repository.path / ".dvc/cache/runs")
        for checkpoint in ("epoch-000001.npz", "epoch-000003.npz"):
            delay = random.uniform(0, 5)
            output = kill_after(repository, checkpoint, delay)
            resumed = re.search("resuming.*", output)
            print(
                f"{resumed[0] if resumed else 'started'}; killed {delay:.1f} s after {checkpoint}"
            )
        output = repository.check(*REPRO)
        print(re.findall("resuming.*", output), flush=True)
        resumed_equal = repository.digests(RESULTS) == expected
        print(f"killed and resumed: {'the same' if resumed_equal else 'OTHER'} bytes", flush=True)

        print(repository.check(sys.executable, "-c", COST))
        sys.exit(not (repeated and resumed_equal))


if __name__ == "__main__":
    main()
