"""Run the whole pipeline on a generated sample in a clone, demo/: `python -m stages.tools.demo`.

An interrupted demo resumes. With `--remove` it removes demo/ instead, with everything in it.
"""

import os
import shutil
import signal
import subprocess
from pathlib import Path
from types import FrameType

from stages.common import command_line, paths
from stages.common.atomic import atomic_write, remove
from stages.common.errors import StageError, one_line_errors
from stages.common.locks import lock_stage
from stages.common.start_up import SIGNALS, descendants

DEMO = Path("demo")
LOCK = "requirements.lock"

# Small batches, for more steps. In the ResNets batch normalization stays frozen: its moving
# averages would take hundreds of steps to catch up, and the demo has 180. Without it they need a
# smaller learning rate. `++`, as a resumed demo has these keys already.
SETTINGS = [
    "dataset=sample",
    "epochs=2",
    "batch_size=16",
    "models.fast94.epochs=2",
    "models.fast94.batch_size=96",
    "models.resnet50_scratch.learning_rate=0.0003",
    "models.resnet50_finetune.learning_rate=0.0003",
    "++models.resnet50_scratch.frozen_batch_norm_epochs=2",
    "++models.resnet50_finetune.frozen_batch_norm_epochs=2",
]


def git(*arguments: str) -> str:
    """The output of a Git command; raises `StageError` with its last line of error output."""
    result = subprocess.run(["git", *arguments], capture_output=True, text=True)
    if result.returncode != 0:
        reason = (result.stderr.splitlines() or [f"exit status {result.returncode}"])[-1]
        raise StageError(f"git {arguments[0]}: {reason}; fix that and run it again")
    return result.stdout.rstrip()


def make_clone() -> None:
    """Clone this repository to demo/."""
    with atomic_write(DEMO) as partial:  # an interrupted clone never has that name
        git("clone", "--quiet", ".", str(partial))
        for result in (partial / paths.METRICS).glob("*.*"):
            result.unlink()  # of the recorded run, not of the demo
        (partial / ".venv").symlink_to("../.venv")  # for pre-commit's hooks and make, which ...
        shutil.copystat(LOCK, partial / LOCK)  # ... would install again if this file were newer


def check_clone(commit: str) -> None:
    """Raise `StageError` unless demo/ is a clone at that commit, without commits of its own."""
    head = ["git", f"--git-dir={DEMO}/.git", "rev-parse", "HEAD"]
    if subprocess.run(head, capture_output=True, text=True).stdout.rstrip() != commit:
        raise StageError(
            f"{DEMO}/ has commits of its own or is of another commit than {commit[:7]}; `make "
            "clean-demo` removes it with everything in it, then run `make demo` again"
        )


def pass_on(number: int, _frame: FrameType | None) -> None:
    """Pass a signal on to DVC and its stage, and wait for their end; they get Ctrl-C anyway."""
    if number != signal.SIGINT:
        for child in descendants(os.getpid()):
            os.kill(child, number)


def run_pipeline() -> None:
    """Run `dvc exp run` in demo/ and print the results; raises `StageError` if it fails."""
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:
        signal.signal(number, pass_on)
    settings = [argument for setting in SETTINGS for argument in ("--set-param", setting)]
    if subprocess.run(["dvc", "exp", "run", *settings], cwd=DEMO).returncode != 0:
        raise StageError("the demo is incomplete; `make demo` resumes it")
    print("\n" + (DEMO / paths.REPORT_MD).read_text(encoding="utf-8"))
    print("page:", (DEMO / paths.REPORT_HTML).resolve())


@one_line_errors
def main() -> None:
    parser = command_line.parser("stages.tools.demo", __doc__)
    parser.add_argument("--remove", action="store_true", help="remove demo/ instead")
    arguments = parser.parse_args()

    lock_stage("demo")
    if arguments.remove:
        remove(DEMO)
        return
    commit = git("rev-parse", "HEAD")
    if DEMO.exists():
        check_clone(commit)
    else:
        make_clone()
    left_out = len(git("status", "--porcelain").splitlines())
    note = f", without {left_out} uncommitted changes" if left_out else ""
    print(f"{DEMO}/ is a clone of commit {commit[:7]}{note}", flush=True)
    run_pipeline()


if __name__ == "__main__":
    main()
