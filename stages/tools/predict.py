"""Classify your own images: `python -m stages.tools.predict IMAGE ... [--model NAME] [--json]`.

Reads image files, or folders of them, models/ and data/evaluations/. Prints the most probable
classes according to each model, at most three. Files that are not images are reported on standard
error; the exit status is then 1. Writes nothing.
"""

import functools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.cells import cell_len, set_cell_size
from tqdm import tqdm

from stages.common import command_line, params, paths
from stages.common.console import left_out_notice, printable, without_stderr
from stages.common.errors import StageError
from stages.common.hashing import sha256
from stages.dataset.splits import prediction_batch_size, scale
from stages.reporting.model_results import Evaluation, read_evaluation
from stages.sources import image_files

TOP_CLASSES = 3

Prediction = list[tuple[str, float]]  # the most probable classes, with their probabilities


def as_path(name: str) -> Path:
    """The path of an image or a folder; an empty name, which `Path` makes `.`, is refused."""
    if not name:
        raise StageError("the name of an image is empty; name a file or a folder")
    return Path(name)


def find(named: list[Path]) -> list[Path]:
    """The named files, and the image files in the named folders, each once; others are counted."""
    files, folders = [], {path for path in named if path.is_dir()}
    for path in named:
        if path not in folders:
            files.append(path)  # `read` reports it if it is not an image
        elif in_folder := image_files.find(path):
            files += in_folder
        else:
            raise StageError(f"{image_files.without_images([path])}, or name another folder")
    if notice := left_out_notice(image_files.count_left_out(*folders)):
        print("NOTICE:", notice, file=sys.stderr)
    return [*dict.fromkeys(files)]


def read_batches(files: list[Path], size: tuple[int, int]) -> Iterator[dict[Path, np.ndarray]]:
    """Yield the images (H, W, 3) of some files at a time; files that are no images are reported."""
    count = prediction_batch_size(size)
    # None: only in a terminal
    with tqdm(total=len(files), desc="classifying", disable=None, leave=False) as progress:
        for first in range(0, len(files), count):
            images = {}
            for file in files[first : first + count]:
                try:
                    with without_stderr():  # libtiff prints what is wrong without the file's name
                        images[file] = image_files.read(file, size)
                except StageError as error:
                    tqdm.write(str(error), sys.stderr)
                progress.update()
            if images:
                yield images


def trained_models(name: str | None) -> list[str]:
    """The named model, or all trained ones; untrained ones are reported."""
    settings = params.load()
    chosen = {name: settings.model(name)} if name else settings.models
    trained = [name for name in chosen if (paths.MODELS / f"{name}.keras").is_file()]
    missing = [f"train@{name}" for name in chosen if name not in trained]
    advice = f"not trained yet: run `dvc repro {' '.join(missing)}`"
    if not trained:
        raise StageError(f"{name or 'models'}: {advice}")
    if missing:
        print(advice, file=sys.stderr)
    return trained


def evaluations(names: list[str]) -> dict[str, Evaluation]:
    """The models' evaluations, which name their classes and the size of their images.

    Raises `StageError` if they belong to other model files, or the images differ in size.
    """
    results = {}
    for name in names:
        path, folder = paths.MODELS / f"{name}.keras", paths.EVALUATIONS / name
        if folder.exists():
            results[name] = read_evaluation(name)
        if name not in results or results[name].sha256 != sha256(path):
            raise StageError(f"{path}: not evaluated yet: run `dvc repro evaluate@{name}`")
    sizes = {evaluation.image_size for evaluation in results.values()}
    if len(sizes) > 1:
        raise StageError("the models were trained on images of different sizes; name one: --model")
    return results


@functools.cache
def load(name: str) -> Any:
    """A trained model, of which each is loaded once."""
    # Imported here, so that a wrong name or file is reported immediately.
    from stages.training import model_file

    return model_file.load(paths.MODELS / f"{name}.keras")


def predict(name: str, images: np.ndarray, classes: list[str]) -> list[Prediction]:
    """A model's prediction for each of the images, (N, H, W, 3) uint8."""
    # Not `model.predict`, which traces again for the last batch and warns about it.
    rows = np.asarray(load(name)(scale(images), training=False))
    tops = np.argsort(-rows)[:, :TOP_CLASSES]
    return [
        [(classes[label], float(row[label])) for label in top]
        for row, top in zip(rows, tops, strict=True)
    ]


def as_text(path: Path, predictions: dict[str, Prediction]) -> str:
    """The predictions of every model for one image, one line per model."""
    width = max(map(len, predictions))
    labels = [printable(label) for top in predictions.values() for label, _ in top]
    label_width = max([10, *map(cell_len, labels)])  # a Chinese character takes two columns
    lines = [printable(str(path))]
    for name, top in predictions.items():
        cells = [f"{set_cell_size(printable(x), label_width)} {100 * p:5.1f} %" for x, p in top]
        lines.append("  ".join([f"  {name:<{width}}", *cells]))
    return "\n".join(lines)


def as_json(by_image: list[tuple[Path, dict[str, Prediction]]]) -> str:
    """The predictions of every model for each image, for programs."""
    content = [
        {
            "image": str(path),
            "models": {
                name: [{"class": label, "probability": p} for label, p in top]
                for name, top in predictions.items()
            },
        }
        for path, predictions in by_image
    ]
    return json.dumps(content, indent=1)


def main(named: list[Path], model: str | None, json: bool) -> None:
    trained = evaluations(trained_models(model))
    size = next(iter(trained.values())).image_size
    files = find(named)
    by_image: list[tuple[Path, dict[str, Prediction]]] = []
    for images in read_batches(files, size):
        pixels = np.stack([*images.values()])
        by_model = [predict(name, pixels, trained[name].classes) for name in trained]
        by_image += [
            (path, dict(zip(trained, predictions, strict=True)))
            for path, *predictions in zip(images, *by_model, strict=True)
        ]
    if by_image:
        print(as_json(by_image) if json else "\n".join(as_text(*result) for result in by_image))
    sys.exit(len(by_image) < len(files))


if __name__ == "__main__":
    command = command_line.parser("stages.tools.predict", __doc__)
    command.add_argument(
        "named", nargs="+", type=as_path, metavar="IMAGE", help="a file, or a folder"
    )
    command.add_argument("--model", help="one model of params.yaml instead of all trained ones")
    command.add_argument("--json", action="store_true", help="print JSON instead of text")
    command_line.run(main, command)
