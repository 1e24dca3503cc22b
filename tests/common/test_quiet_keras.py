"""Keras' import prints warnings, but not TensorFlow's start-up messages, and needs no disk."""

import sys

from tests.faults import assert_one_line, needs_mounts, outputs, read_only, run_mounted
from tests.repository import ROOT, Repository

SCRIPT = """
import os
from stages.common.quiet_keras import without_start_up_messages

with without_start_up_messages():
    os.write(2, b'I0 port.cc:153] oneDNN custom operations are on. You may see\\n')
    os.write(2, b'W0 allocator.cc: Allocation of 99 GB exceeds free memory\\n')
"""


def test_only_start_up_messages_are_silenced() -> None:
    command = (sys.executable, "-c", SCRIPT)
    result = Repository(ROOT).run(*command, KERAS_BACKEND="numpy")  # faster to import
    assert result.returncode == 0, result.stderr
    assert result.stderr == "W0 allocator.cc: Allocation of 99 GB exceeds free memory\n"


@needs_mounts
def test_no_folder_for_temporary_files_ends_a_stage_in_one_line(clone: Repository) -> None:
    before = outputs(clone)
    folders = ["/tmp", "/var/tmp", str(clone.path)]
    prepare = " && ".join([*map(read_only, folders), f"cd {clone.path}"])
    result = run_mounted(clone, prepare, "evaluate simple_cnn")
    assert_one_line(result, "TensorFlow cannot be imported: No usable temp", "set TMPDIR")
    assert outputs(clone) == before
