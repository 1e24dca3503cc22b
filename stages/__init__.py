"""The pipeline: one script per node of `dvc dag`, run as `python -m stages.<stage>`."""

import os
import time

STARTED = time.monotonic()  # before any stage imports what takes seconds

# TensorFlow reads these when it is imported. It enables oneDNN by itself only on processors with
# AVX-512; with AVX2, a step of ResNet50 took 8.3 s without and 1.2 s with it.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
