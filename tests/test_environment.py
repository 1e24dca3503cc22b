"""What libraries read from the user's machine changes no result, or is recorded."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.repository import ROOT, Repository, training_results

REMOVED = {
    "KERAS_MAX_EPOCHS": "1",
    "KERAS_MAX_STEPS_PER_EPOCH": "1",
    "DVCLIVE_RESUME": "1",
    "DVCLIVE_LOGLEVEL": "silent",
    "TQDM_NCOLS": "wide",
}
RECORDED = {
    "DNNL_MAX_CPU_ISA": "AVX2",
    "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16",
    "JAX_ENABLE_X64": "1",
    "NVIDIA_TF32_OVERRIDE": "0",
    "OMP_NUM_THREADS": "1",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "TF_DETERMINISTIC_OPS": "1",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_XLA_FLAGS": "--tf_xla_auto_jit=2",
    "XLA_FLAGS": "--xla_cpu_enable_fast_math=true",
}
NOT_RECORDED = {
    "TF_VAR_password": "secret",
    "TF_TOKEN_app_terraform_io": "secret",
    "TF_CPP_MIN_LOG_LEVEL": "0",
    "CUDA_VISIBLE_DEVICES": "1",
    "JAX_COORDINATOR_ADDRESS": "host:1234",
}
IMPORT = """
import json, os, stages
print(json.dumps([dict(os.environ), stages.ENVIRONMENT]))
"""


def import_stages(**environment: str) -> tuple[dict[str, str], dict[str, str]]:
    """The environment after importing `stages`, and what of it is recorded."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
    command = [sys.executable, "-c", IMPORT]
    output = subprocess.check_output(command, cwd=ROOT, env={**kept, **environment})
    everything, recorded = json.loads(output)
    return everything, recorded


def test_variables_that_may_change_results_are_removed_or_recorded() -> None:
    everything, recorded = import_stages(**REMOVED, **RECORDED, **NOT_RECORDED)
    assert not everything.keys() & REMOVED.keys()
    assert everything.items() >= (RECORDED | NOT_RECORDED).items()
    assert recorded == RECORDED
    assert import_stages()[1] == {"TF_ENABLE_ONEDNN_OPTS": "1"}


def test_other_backend_is_refused_in_one_line() -> None:
    for backend in ("torch", " jax"):
        command = (sys.executable, "-c", "import stages.common.quiet_keras")
        result = Repository(ROOT).run(*command, KERAS_BACKEND=backend)
        assert result.returncode == 1
        message = f"error: KERAS_BACKEND={backend!r}: set it to tensorflow or jax\n"
        assert result.stderr == message


def test_ctrl_c_ends_a_stage_at_once_and_without_a_traceback() -> None:
    command = (sys.executable, "-c", "import os, stages; os.kill(os.getpid(), 2); print('alive')")
    result = Repository(ROOT).run(*command)
    assert (result.returncode, result.stdout, result.stderr) == (-signal.SIGINT, "", "")


def test_dotfiles_and_variables_do_not_change_training(clone: Repository, tmp_path: Path) -> None:
    results = [*training_results("simple_cnn"), "metrics/provenance/simple_cnn.json"]
    expected = clone.digests(results)
    (clone.path / "models/simple_cnn.keras").unlink()
    configuration = {"floatx": "float16", "epsilon": 0.1, "backend": "torch"}
    configuration["image_data_format"] = "channels_first"
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras/keras.json").write_text(json.dumps(configuration))
    environment = {**REMOVED, "HOME": str(tmp_path), "JAX_ENABLE_X64": "1", "KERAS_BACKEND": ""}
    clone.check(sys.executable, "-m", "stages.train", "simple_cnn", **environment)
    # The model is equal, so the record of its first training run is kept.
    assert clone.digests(results) == expected
    provenance = json.loads((clone.path / results[-1]).read_text())
    assert len(provenance["epoch_seconds"]) == 1
    assert "JAX_ENABLE_X64" not in provenance["environment"]
