"""Classify your own images: `python -m stages.tools.predict IMAGE ... [--model NAME] [--json]`.

Reads image files, or folders of them, models/ and data/evaluations/. Prints the most probable
classes according to each model, at most three. Files that are not images are reported on standard
error; the exit status is then 1. Writes nothing.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.cells import cell_len, set_cell_size
from tqdm import tqdm

from stages.common import command_line, params, paths
from stages.common.console import printable
from stages.common.errors import StageError, one_line_errors
from stages.common.hashing import sha256
from stages.dataset.splits import scale
from stages.reporting.model_results import Evaluation, read_evaluation
from stages.sources import image_files

TOP_CLASSES = 3
BATCH_SIZE = 250  # affects only speed and memory

Predictions = dict[str, list[tuple[str, float]]]  # classes and probabilities by model


def find(given_paths: list[Path]) -> list[Path]:
    """The given files, and the image files in the given folders."""
    files = []
    for path in given_paths:
        if not path.is_dir():
            files.append(path)  # which the user named, so `read` reports it if it is not an image
        elif in_folder := image_files.find(path):
            files += in_folder
        else:
            raise StageError(f"{path}: there is no image in this folder; name another")
    return files


def trained_models(name: str | None) -> list[str]:
    """The named model, or all trained ones; untrained ones are reported."""
    settings = params.load()
    names = list(settings.models)
    if name:
        settings.model(name)
        names = [name]
    trained = [name for name in names if (paths.MODELS / f"{name}.keras").is_file()]
    missing = [f"train@{name}" for name in names if name not in trained]
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
    results = {name: read_evaluation(name) for name in names}
    for name, evaluation in results.items():
        path = paths.MODELS / f"{name}.keras"
        if evaluation.sha256 != sha256(path):
            raise StageError(f"{path}: not evaluated yet: run `dvc repro evaluate@{name}`")
    sizes = {evaluation.image_size for evaluation in results.values()}
    if len(sizes) > 1:
        raise StageError("the models were trained on images of different sizes; name one: --model")
    return results


def predict(images: np.ndarray, classes: dict[str, list[str]]) -> Iterator[Predictions]:
    """The predictions of models for each of the images, (N, H, W, 3) uint8.

    `classes` has the class names of each model.
    """
    # Imported here, so that a wrong name or file is reported immediately.
    from stages.common.quiet_keras import keras
    from stages.training import model_file

    models = [model_file.load(paths.MODELS / f"{name}.keras") for name in classes]
    probabilities: list[list[np.ndarray]] = [[] for _ in models]
    for batch in np.array_split(images, -(-len(images) // BATCH_SIZE)):
        x = scale(batch)
        for rows, model in zip(probabilities, models, strict=True):
            # Not `model.predict`, which traces again for the last batch and warns about it.
            rows.extend(keras.ops.convert_to_numpy(model(x, training=False)))
    for image_rows in zip(*probabilities, strict=True):
        yield {
            name: [(names[label], float(row[label])) for label in np.argsort(-row)[:TOP_CLASSES]]
            for (name, names), row in zip(classes.items(), image_rows, strict=True)
        }


def as_text(path: Path, predictions: Predictions) -> str:
    """The predictions for one image, one line per model."""
    width = max(map(len, predictions))
    names = [printable(label) for classes in predictions.values() for label, _ in classes]
    label_width = max([10, *map(cell_len, names)])  # a Chinese character takes two columns
    lines = [
        f"  {name:<{width}}  "
        + "  ".join(
            f"{set_cell_size(printable(label), label_width)} {100 * p:5.1f} %"
            for label, p in classes
        )
        for name, classes in predictions.items()
    ]
    return "\n".join([printable(str(path)), *lines])


def as_json(path: Path, predictions: Predictions) -> dict[str, Any]:
    """The predictions for one image, for programs."""
    return {
        "image": str(path),
        "models": {
            name: [{"class": label, "probability": p} for label, p in classes]
            for name, classes in predictions.items()
        },
    }


def readable_json(content: object, encoding: str) -> str:
    """JSON without escapes but those of characters that a terminal would obey or cannot show."""

    def escape(match: re.Match[str]) -> str:
        character = match[0]
        shown = character.isprintable() and character.encode(encoding, "ignore")
        return character if shown else json.dumps(character)[1:-1]

    return re.sub(r"[^ -~\n]", escape, json.dumps(content, indent=1, ensure_ascii=False))


@one_line_errors
def main() -> None:
    parser = command_line.parser("stages.tools.predict", __doc__)
    parser.add_argument("images", nargs="+", type=Path, help="image files, or folders of them")
    parser.add_argument("--model", help="one model of params.yaml instead of all trained ones")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    arguments = parser.parse_args()

    trained = evaluations(trained_models(arguments.model))
    size = next(iter(trained.values())).image_size
    files = find(arguments.images)
    images = {}
    for file in tqdm(files, "reading", disable=None, leave=False):  # None: only in a terminal
        try:
            images[file] = image_files.read(file, size)
        except StageError as error:
            tqdm.write(str(error), sys.stderr)
    if not images:
        sys.exit(1)
    classes = {name: evaluation.classes for name, evaluation in trained.items()}
    results = list(zip(images, predict(np.stack([*images.values()]), classes), strict=True))
    if arguments.json:
        content = [as_json(*result) for result in results]
        print(readable_json(content, sys.stdout.encoding))
    else:
        print("\n".join(as_text(*result) for result in results))
    sys.exit(len(images) < len(set(files)))


if __name__ == "__main__":
    main()
