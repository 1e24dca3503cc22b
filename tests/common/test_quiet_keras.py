"""Keras' import prints warnings, but not TensorFlow's start-up messages."""

import os

import pytest

from stages.common.quiet_keras import without_start_up_messages


def test_only_start_up_messages_are_silenced(capfd: pytest.CaptureFixture[str]) -> None:
    with without_start_up_messages():
        os.write(2, b"I0 port.cc:153] oneDNN custom operations are on. You may see\n")
        os.write(2, b"W0 allocator.cc: Allocation of 99 GB exceeds free memory\n")
    assert capfd.readouterr().err == "W0 allocator.cc: Allocation of 99 GB exceeds free memory\n"
