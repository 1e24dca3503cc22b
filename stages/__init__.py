"""The pipeline: one script per node of `dvc dag`, run as `python -m stages.<stage>`."""

import os
import sys
import time
from pathlib import Path

from stages.common.start_up import exit_on_signals, open_standard_streams

STARTED = time.monotonic()  # before any stage imports what takes seconds

if sys.argv[0] == "-m":  # so far, `python -m stages.<stage>` has only found this package
    open_standard_streams()
    exit_on_signals()
    if (backend := os.environ.get("KERAS_BACKEND")) not in (None, "", "tensorflow", "jax"):
        raise SystemExit(f"error: KERAS_BACKEND={backend!r}: set it to tensorflow or jax")

# Libraries read the following from the user's machine when they are imported.

# TensorFlow enables oneDNN by itself only on processors with AVX-512; with AVX2, a step of ResNet50
# took 8.3 s without and 1.2 s with it.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# ~/.keras/keras.json would change types, epsilon and the order of axes. In this folder, Keras finds
# only what it writes itself, its defaults.
os.environ["KERAS_HOME"] = str(Path(__file__).parent.parent / ".dvc/tmp/keras")

# These would train less than params.yaml says, write the learning curves elsewhere, or end an
# import in a traceback.
IGNORED = ("KERAS_MAX_", "KERAS_NNX_", "DVCLIVE_", "TQDM_", "SOURCE_DATE_EPOCH")
for variable in [*os.environ]:
    if variable.startswith(IGNORED):
        del os.environ[variable]

# What is left to the user although it may change a model's bytes; provenance records it. The names
# are many, but TF_ alone is Terraform's as well, with passwords.
CHANGES_RESULTS = (
    *("CUBLAS_", "CUDNN_", "DNNL_", "JAX_CPU", "JAX_DEFAULT", "JAX_DISABLE", "JAX_ENABLE"),
    *("JAX_NUMPY", "JAX_PLATFORM", "JAX_RANDOM", "JAX_THREEFRY", "KMP_", "MKL_", "NPY_"),
    *("NVIDIA_TF32", "OMP_", "ONEDNN_", "OPENBLAS_", "TF_AUTO", "TF_CONV", "TF_CUBLAS", "TF_CUDNN"),
    *("TF_DETERMINISTIC", "TF_DISABLE_", "TF_ENABLE_", "TF_FP16", "TF_FUNCTION", "TF_GPU_"),
    *("TF_JIT", "TF_MATMUL", "TF_MKL", "TF_NUM_", "TF_ONEDNN", "TF_SET_", "TF_USE_", "TF_XLA"),
    *("XLA_",),
)
ENVIRONMENT = {
    name: value for name, value in sorted(os.environ.items()) if name.startswith(CHANGES_RESULTS)
}
