"""The pipeline's stages, one script per node of `dvc dag`, run as `python -m stages.<stage>`."""

import os
import time

STARTED = time.monotonic()  # before any stage imports what takes seconds

# TensorFlow reads these when it is imported, so they are set before any stage can import it.
# Without oneDNN, which TensorFlow switches on by itself only for processors with AVX-512, a step
# of ResNet50 took 8.3 s instead of 1.2 s on an AVX2 processor.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
