"""What libraries read from the user's machine changes no result, or is recorded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repository import ROOT, Repository, training_results

# By variable; those that the project sets or removes.
REMOVED = {
    "KERAS_MAX_EPOCHS": "1",
    "KERAS_MAX_STEPS_PER_EPOCH": "1",
    "KERAS_NNX_ENABLED": "true",
    "DVCLIVE_TEST": "1",
    "DVCLIVE_RESUME": "1",
    "DVCLIVE_LOGLEVEL": "silent",
    "DVCLIVE_OPEN": "1",
    "TQDM_NCOLS": "wide",
    "SOURCE_DATE_EPOCH": "yesterday",
}
RECORDED = {
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "TF_XLA_FLAGS": "--tf_xla_auto_jit=2",
    "TF_DETERMINISTIC_OPS": "1",
    "TF_CUDNN_DETERMINISTIC": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
    "DNNL_MAX_CPU_ISA": "AVX2",
    "OMP_NUM_THREADS": "1",
    "KMP_AFFINITY": "none",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NPY_DISABLE_CPU_FEATURES": "AVX2",
    "XLA_FLAGS": "--xla_cpu_enable_fast_math=true",
    "JAX_ENABLE_X64": "1",
    "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16",
    "NVIDIA_TF32_OVERRIDE": "0",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}
NOT_RECORDED = {
    "TF_VAR_password": "secret",
    "TF_TOKEN_app_terraform_io": "secret",
    "TF_HTTP_PASSWORD": "secret",
    "TF_ENCRYPTION": "secret",
    "TF_CLI_ARGS": "-no-color",
    "TF_CPP_MIN_LOG_LEVEL": "0",
    "CUDA_VISIBLE_DEVICES": "1",
    "JAX_COORDINATOR_ADDRESS": "host:1234",
    "PYTHONHASHSEED": "1",
}
KERAS_JSON = {
    "other types": '{"floatx": "float16"}',
    "wide types": '{"floatx": "float64"}',
    "other epsilon": '{"epsilon": 0.1}',
    "channels first": '{"image_data_format": "channels_first"}',
    "missing backend": '{"backend": "torch"}',
    "invalid values": '{"floatx": "float8", "epsilon": "small", "backend": 3}',
    "not JSON": "{",
    "not an object": "[]",
}
# Keras' configuration alone, because Keras imports this file first of all, and slowly.
READ_CONFIGURATION = """
import importlib, json, os, sys
from pathlib import Path
os.environ["KERAS_BACKEND"] = "numpy"  # faster to import
import stages
import keras
from keras.src.backend import config

settings = {}
for case, text in json.loads(sys.argv[1]).items():
    Path.home().joinpath(".keras/keras.json").write_text(text)
    importlib.reload(config)
    values = config.floatx(), config.epsilon(), config.image_data_format(), config._BACKEND
    settings[case] = [*values, config.max_epochs(), config.max_steps_per_epoch()]
print(json.dumps(settings))
"""


def import_stages(**environment: str) -> dict[str, dict[str, str]]:
    """The environment after importing `stages`, and what of it is recorded."""
    script = (
        "import json, os, stages;"
        "print(json.dumps({'all': dict(os.environ), 'recorded': stages.ENVIRONMENT}))"
    )
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
    command = [sys.executable, "-c", script]
    output = subprocess.check_output(command, cwd=ROOT, env={**kept, **environment})
    result: dict[str, dict[str, str]] = json.loads(output)
    return result


def test_variables_that_would_change_or_end_a_stage_are_removed() -> None:
    assert not import_stages(**REMOVED)["all"].keys() & REMOVED.keys()


def test_variables_that_may_change_results_are_recorded() -> None:
    assert import_stages(**RECORDED, **NOT_RECORDED)["recorded"] == RECORDED


def test_default_environment_is_recorded_as_the_project_sets_it() -> None:
    assert import_stages()["recorded"] == {"TF_ENABLE_ONEDNN_OPTS": "1"}


@pytest.mark.parametrize("backend", ["torch", "numpy", "openvino", "TensorFlow", " jax"])
def test_other_backend_is_refused_in_one_line(backend: str) -> None:
    command = (sys.executable, "-m", "stages.train", "simple_cnn")
    result = Repository(ROOT).run(*command, KERAS_BACKEND=backend)
    assert result.returncode == 1
    message = f"error: KERAS_BACKEND={backend!r}: set it to tensorflow or jax\n"
    assert result.stderr == message


def test_keras_json_changes_no_setting(tmp_path: Path) -> None:
    (tmp_path / ".keras").mkdir()
    command = (sys.executable, "-c", READ_CONFIGURATION, json.dumps(KERAS_JSON))
    output = Repository(ROOT).check(*command, HOME=str(tmp_path), **REMOVED)
    defaults = ["float32", 1e-7, "channels_last", "numpy", None, None]
    assert json.loads(output) == dict.fromkeys(KERAS_JSON, defaults)


def test_dotfiles_and_variables_do_not_change_training(clone: Repository, tmp_path: Path) -> None:
    results = training_results("simple_cnn")
    expected = clone.digests(results)
    (tmp_path / ".keras").mkdir()
    configuration = {"floatx": "float16", "epsilon": 0.1, "backend": "torch"}
    (tmp_path / ".keras/keras.json").write_text(json.dumps(configuration))
    (tmp_path / ".config/dvc").mkdir(parents=True)
    (tmp_path / ".config/dvc/config").write_text("[[[")
    environment = {**REMOVED, "HOME": str(tmp_path), "JAX_ENABLE_X64": "1", "KERAS_BACKEND": ""}
    clone.check(sys.executable, "-m", "stages.train", "simple_cnn", **environment)
    assert clone.digests(results) == expected
    provenance = json.loads((clone.path / "metrics/provenance/simple_cnn.json").read_text())
    assert provenance["environment"]["JAX_ENABLE_X64"] == "1"
