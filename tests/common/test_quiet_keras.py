"""Keras' import prints warnings, but not TensorFlow's start-up messages."""

import os
import subprocess
import sys

from tests.repository import ROOT

SCRIPT = """
import os
from stages.common.quiet_keras import without_start_up_messages

with without_start_up_messages():
    os.write(2, b'I0 port.cc:153] oneDNN custom operations are on. You may see\\n')
    os.write(2, b'W0 allocator.cc: Allocation of 99 GB exceeds free memory\\n')
"""


def test_only_start_up_messages_are_silenced() -> None:
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "numpy"},  # faster to import
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stderr == "W0 allocator.cc: Allocation of 99 GB exceeds free memory\n"
