"""Train all models on small folders of images: the table of docs/your-own-data.md.

    python -m benchmarks.folders make FOLDER EMOJI
    python -m benchmarks.folders run FOLDER [--models NAME ...] [--draws N]
    python -m benchmarks.folders baseline FOLDER PYTHON
    python -m benchmarks.folders table FOLDER

- `make` writes three draws of four folders: three of CIFAR-10's images, which must be in data/
  (`dvc repro preprocess`), and one of the emoji in EMOJI, the file that
  `npm pack emoji-datasource-twitter@16.0.0` writes. Each has train/ and test/.
- `run` trains and evaluates models on each of them, in a clone; it skips what it has measured.
- `baseline` measures a logistic regression on features of ImageNet's ResNet50, from the same images
  enlarged to 128 pixels. PYTHON is an interpreter with scikit-learn; this environment has none.
- `table` prints balanced accuracies, means over the draws, and median minutes.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stages.common import command_line, params, paths
from stages.common.atomic import remove, write_json
from stages.reporting.markdown import markdown_table
from stages.sources.cifar import CLASSES
from tests.repository import ROOT, Repository

DRAWS, SIZE = 3, 64  # pixels, as params.yaml's folder.image_size
TEST_IMAGES = 500  # of each class of CIFAR-10
# Training images by class.
CIFAR10_FOLDERS = {
    "cats-dogs-horses": {"cat": 60, "dog": 150, "horse": 400},
    "ten-classes": dict.fromkeys(CLASSES, 100),
    "ships-trucks": {"ship": 30, "truck": 30},
}
EMOJI_CLASSES = (
    *("Smileys & Emotion", "Animals & Nature", "Food & Drink", "Travel & Places"),
    *("Activities", "Objects", "Symbols"),
)
EMOJI_SHARE = 2 / 3  # of the emoji for training
BASELINE, BASELINE_PIXELS = "features + logistic regression", 128
LOGISTIC_REGRESSION = """
import sys
import numpy as np
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

data = np.load(sys.argv[1])
classifier = LogisticRegressionCV(Cs=np.logspace(-5, 1, 7), cv=5, max_iter=2000)
model = make_pipeline(StandardScaler(), classifier).fit(data["x_train"], data["y_train"])
print(balanced_accuracy_score(data["y_test"], model.predict(data["x_test"])))
"""

Folder = dict[str, dict[str, list[Image.Image]]]  # images by split and class


def cifar10_folder(counts: dict[str, int], draw: int) -> Folder:
    """So many of CIFAR-10's images of each class."""
    classes = json.loads(paths.DESCRIPTION.read_bytes())["classes"]
    folder: Folder = {"train": {}, "test": {}}
    for split, path in (("train", paths.TRAIN), ("test", paths.TEST)):
        images, labels = np.load(path / "x.npy", mmap_mode="r"), np.load(path / "y.npy")
        for name, count in counts.items():
            rows = np.flatnonzero(labels == classes.index(name))
            if split == "train":
                rows = np.random.default_rng([draw, classes.index(name)]).permutation(rows)[:count]
            else:
                rows = rows[:TEST_IMAGES]
            folder[split][name] = [Image.fromarray(images[row]) for row in rows]
    return folder


def emoji_folder(file: Path, draw: int) -> Folder:
    """The emoji of an npm package by category."""
    with tarfile.open(file) as tar:

        def read(name: str) -> bytes:
            content = tar.extractfile(f"package/{name}")
            assert content is not None
            return content.read()

        entries = json.loads(read("emoji.json"))
        folder: Folder = {"train": {}, "test": {}}
        for category in EMOJI_CLASSES:
            names = [x["image"] for x in entries if x["category"] == category]
            images = [Image.open(io.BytesIO(read(f"img/twitter/64/{name}"))) for name in names]
            order = np.random.default_rng(draw).permutation(len(images))
            count = round(EMOJI_SHARE * len(images))
            folder["train"][category] = [images[index] for index in order[:count]]
            folder["test"][category] = [images[index] for index in order[count:]]
    return folder


def make(root: Path, emoji: Path) -> None:
    """Write all folders."""
    for draw in range(DRAWS):
        folders = {name: cifar10_folder(x, draw) for name, x in CIFAR10_FOLDERS.items()}
        folders["emoji"] = emoji_folder(emoji, draw)
        for name, folder in folders.items():
            for split, classes in folder.items():
                for label, images in classes.items():
                    target = root / "images" / str(draw) / name / split / label
                    target.mkdir(parents=True)
                    for number, image in enumerate(images):
                        image.save(target / f"{number:04}.png")
            print(root / "images" / str(draw) / name, flush=True)


def prepared(root: Path) -> Iterator[tuple[str, Repository]]:
    """A clone with each of the folders as prepared images, and the folder's name."""
    clone = Repository(root / "clone")
    remove(clone.path)
    subprocess.run(["git", "clone", "--quiet", ROOT, clone.path], check=True)
    downloads = clone.path / paths.DOWNLOADS
    downloads.symlink_to(ROOT / paths.DOWNLOADS)
    for folder in sorted((root / "images").glob("*/*")):
        clone.set_params("dataset=folder", f"folder.path={folder}")
        clone.check("dvc", "repro", "preprocess", "fetch_weights")
        yield f"{folder.parent.name}/{folder.name}", clone


def read_results(root: Path) -> dict[str, list[float]]:
    """Balanced accuracy and minutes by DRAW/FOLDER/MODEL."""
    file = root / "results.json"
    results: dict[str, list[float]] = json.loads(file.read_text()) if file.exists() else {}
    return results


def record(root: Path, key: str, accuracy: float, started: float) -> None:
    """Add a measurement to the results."""
    minutes = (time.monotonic() - started) / 60
    write_json(root / "results.json", read_results(root) | {key: [accuracy, minutes]})
    print(f"{key}: {accuracy:.1%} in {minutes:.1f} min", flush=True)


def run(root: Path, models: list[str] | None, draws: int) -> None:
    """Train and evaluate models on the folders, all by default."""
    for name, clone in prepared(root):
        for model in models or params.load().models:
            key = f"{name}/{model}"
            if key in read_results(root) or int(name.split("/")[0]) >= draws:
                continue
            started = time.monotonic()
            command = ["dvc", "repro", "--quiet", f"evaluate@{model}"]
            subprocess.run(command, cwd=clone.path, check=True)
            metrics = json.loads((clone.path / f"metrics/{model}.json").read_text())
            record(root, key, metrics.get("balanced_accuracy", metrics["accuracy"]), started)


def baseline(root: Path, python: str) -> None:
    """Measure the baseline on the folders."""
    from stages.architectures import resnet50_imagenet
    from stages.dataset.splits import Split
    from stages.training import features

    file = root / "features.npz"
    for name, clone in prepared(root):
        os.chdir(clone.path)
        started = time.monotonic()
        arrays: dict[str, Any] = {}
        test, *training = (Split(x) for x in (paths.TEST, paths.TRAIN, paths.VALIDATION))
        network = resnet50_imagenet.build(
            input_shape=(SIZE, SIZE, 3),
            classes=2,
            weights=paths.IMAGENET_WEIGHTS,
            enlarge_to=BASELINE_PIXELS,
            frozen=True,
            dropout=0.0,
        )
        for key, splits in (("train", training), ("test", [test])):
            computed = []
            for split in splits:
                remove(Path("features"))
                outputs = features.compute(network.layers[0], split, Path("features"))
                computed.append(outputs.images(np.arange(outputs.count)))
            arrays[f"x_{key}"] = np.concatenate(computed)
            arrays[f"y_{key}"] = np.concatenate([split.labels for split in splits])
        np.savez(file, **arrays)
        output = subprocess.check_output([python, "-c", LOGISTIC_REGRESSION, str(file)], text=True)
        record(root, f"{name}/{BASELINE}", float(output), started)


def table(root: Path) -> None:
    """Print the results."""
    results = read_results(root)
    folders = sorted({key.split("/")[1] for key in results})
    rows = []
    for model in dict.fromkeys(key.split("/")[2] for key in results):
        row = {"model": model}
        for folder in folders:
            of_draws = [x for key, x in results.items() if key.endswith(f"/{folder}/{model}")]
            if of_draws:
                accuracies, minutes = zip(*of_draws, strict=True)
                row[folder] = (
                    f"{statistics.mean(accuracies):.1%} ({statistics.median(minutes):.1f})"
                )
        rows.append(row)
    print(markdown_table([dict.fromkeys(["model", *folders], "") | row for row in rows]))


if __name__ == "__main__":
    command = command_line.parser("benchmarks.folders", __doc__)
    subcommands = command.add_subparsers(dest="function", required=True)
    parsers: dict[str, argparse.ArgumentParser] = {}
    for function in (make, run, baseline, table):
        parsers[function.__name__] = parser = subcommands.add_parser(function.__name__)
        parser.set_defaults(function=function)
        parser.add_argument("root", metavar="FOLDER", type=lambda path: Path(path).absolute())
    parsers["make"].add_argument("emoji", metavar="EMOJI", type=Path)
    parsers["run"].add_argument("--models", nargs="+", help="all by default")
    parsers["run"].add_argument("--draws", type=int, default=DRAWS)
    parsers["baseline"].add_argument("python", metavar="PYTHON")
    command_line.run(lambda function, **arguments: function(**arguments), command)
