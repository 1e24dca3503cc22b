"""Classify your own images: `python -m stages.tools.predict IMAGE ... [--model NAME] [--json]`.

Reads image files, or folders of them, models/ and data/evaluations/. Prints the most probable
classes according to each model, at most three. Files that are not images are reported on standard
error; the exit status is then 1. Writes nothing.
"""

import json
import sys
from pathlib import Path

import numpy as np
from rich.cells import cell_len, set_cell_size
from tqdm import tqdm

from stages.common import command_line, params, paths
from stages.common.console import printable, without_stderr
from stages.common.errors import StageError
from stages.common.hashing import sha256
from stages.dataset.splits import scale
from stages.reporting.model_results import Evaluation, read_evaluation
from stages.sources import image_files

TOP_CLASSES = 3
BATCH_SIZE = 250  # affects only speed and memory

Prediction = list[tuple[str, float]]  # the most probable classes, with their probabilities


def find(named: list[Path]) -> list[Path]:
    """The named files, and the image files in the named folders."""
    files = []
    for path in named:
        if not path.is_dir():
            files.append(path)  # `read` reports it if it is not an image
        elif in_folder := image_files.find(path):
            files += in_folder
        else:
            raise StageError(f"{path}: there is no image in this folder; name another")
    return files


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


def predict(name: str, images: np.ndarray, classes: list[str]) -> list[Prediction]:
    """A model's prediction for each of the images, (N, H, W, 3) uint8."""
    # Imported here, so that a wrong name or file is reported immediately.
    from stages.common.quiet_keras import keras
    from stages.training import model_file

    model = model_file.load(paths.MODELS / f"{name}.keras")
    predictions = []
    for batch in np.array_split(images, -(-len(images) // BATCH_SIZE)):
        # Not `model.predict`, which traces again for the last batch and warns about it.
        for row in keras.ops.convert_to_numpy(model(scale(batch), training=False)):
            top = np.argsort(-row)[:TOP_CLASSES]
            predictions.append([(classes[label], float(row[label])) for label in top])
    return predictions


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
    images = {}
    for file in tqdm(files, "reading", disable=None, leave=False):  # None: only in a terminal
        try:
            with without_stderr():  # libtiff prints what is wrong without the file's name
                images[file] = image_files.read(file, size)
        except StageError as error:
            tqdm.write(str(error), sys.stderr)
    if not images:
        sys.exit(1)
    pixels = np.stack([*images.values()])
    by_model = {name: predict(name, pixels, trained[name].classes) for name in trained}
    by_image = [
        (path, {name: by_model[name][number] for name in trained})
        for number, path in enumerate(images)
    ]
    if json:
        print(as_json(by_image))
    else:
        print("\n".join(as_text(*result) for result in by_image))
    sys.exit(len(images) < len(set(files)))


if __name__ == "__main__":
    command = command_line.parser("stages.tools.predict", __doc__)
    command.add_argument("named", nargs="+", type=Path, metavar="IMAGE", help="a file, or a folder")
    command.add_argument("--model", help="one model of params.yaml instead of all trained ones")
    command.add_argument("--json", action="store_true", help="print JSON instead of text")
    command_line.run(main, command)
