"""The pipeline: one script per node of `dvc dag`, run as `python -m stages.<stage>`."""

import os
import signal
from pathlib import Path

# Ctrl-C ends a stage at once: outputs are written atomically, and training resumes. Python's own
# handler would print a traceback, and waits for the end of a training step.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

# Libraries read the following from the user's machine when they are imported.

# TensorFlow enables oneDNN by itself only on processors with AVX-512; with AVX2, a step of ResNet50
# took 8.3 s without and 1.2 s with it.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# ~/.keras/keras.json would change types, epsilon and the order of axes. In this folder, Keras finds
# only what it writes itself, its defaults.
os.environ["KERAS_HOME"] = str(Path(__file__).parent.parent / ".dvc/tmp/keras")

os.environ["MPLBACKEND"] = "agg"  # Matplotlib draws to files, without a display

# These would train less than params.yaml says, write the learning curves elsewhere, or break an
# import.
for variable in [*os.environ]:
    if variable.startswith(("KERAS_MAX_", "DVCLIVE_", "TQDM_")):
        del os.environ[variable]

# What is left to the user although it may change a model's bytes; provenance records it.
CHANGES_RESULTS = (
    *("DNNL_", "JAX_DEFAULT_", "JAX_ENABLE_", "NVIDIA_TF32", "OMP_", "ONEDNN_"),
    *("TF_DETERMINISTIC", "TF_ENABLE_", "TF_NUM_", "TF_XLA", "XLA_"),
)
ENVIRONMENT = {
    name: value for name, value in sorted(os.environ.items()) if name.startswith(CHANGES_RESULTS)
}
