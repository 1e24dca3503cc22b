"""Classify your own images: `python -m stages.tools.predict IMAGE ... [--model NAME] [--json]`.

Reads image files of any format and size, or folders of them, and models/. Prints the three most
probable classes according to each model. Files that are not images are reported on standard error;
the exit status is then 1. Writes nothing.
"""

import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from stages.common import command_line, params, paths
from stages.common.console import printable
from stages.common.errors import StageError, one_line_errors
from stages.dataset.classes import CLASSES
from stages.dataset.splits import scale

SIZE = 32, 32
TOP_CLASSES = 3
MAX_PIXELS = 200_000_000  # a larger image could exhaust the memory
Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow warns above it and refuses twice as many
UNREADABLE_FORMATS = {"BUFR", "GRIB", "HDF5", "MPEG", "PDF"}  # Pillow knows only their suffixes
BATCH_SIZE = 250  # affects only speed and memory

Predictions = dict[str, list[tuple[str, float]]]  # classes and probabilities by model


def find(given_paths: list[Path]) -> list[Path]:
    """The given files, and the image files in the given folders in alphabetical order.

    Hidden files and files without an image's suffix are skipped in folders.
    """
    formats = Image.registered_extensions()
    suffixes = {suffix for suffix, name in formats.items() if name not in UNREADABLE_FORMATS}
    files = []
    for path in given_paths:
        if not path.is_dir():
            files.append(path)
            continue
        in_folder = [
            file
            for file in sorted(path.rglob("*"))
            if file.suffix.lower() in suffixes
            and file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        ]
        if not in_folder:
            raise StageError(f"{path}: there is no image in this folder; name another")
        files += in_folder
    return files


def to_8_bit(image: Image.Image) -> Image.Image:
    """Convert a grey image with 16 or 32 bits, which Pillow would clip at 255, to mode L.

    White is 65535, or 1 for floats. If there are values below 0 or above white, as in
    measurements, the range is scaled from minimum to maximum. NaN and infinity become 0.
    """
    values = np.nan_to_num(np.asarray(image, np.float32), posinf=0, neginf=0)
    black, white = 0.0, 1.0 if image.mode == "F" else 65535.0
    if values.min() < black or values.max() > white:
        black, white = float(values.min()), float(values.max())
    return Image.fromarray(np.interp(values, (black, white), (0, 255)).round().astype(np.uint8))


def to_rgb(image: Image.Image) -> Image.Image:
    """The first frame in 8-bit RGB, upright, on white where it is transparent."""
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = to_8_bit(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def read(path: Path) -> np.ndarray:
    """The center square of an image, resized to (32, 32, 3) uint8.

    Raises `StageError` if it is not a readable image.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is not a file")  # opening a pipe could block forever
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"it has more than {MAX_PIXELS:,} pixels")
            rgb = to_rgb(image)
    except UnidentifiedImageError:
        reason = "Pillow does not know its format"
    except Exception as error:  # depends on the format's reader
        reason = getattr(error, "strerror", None) or f"{error!s:.200}"
    else:
        resized: np.ndarray = np.asarray(ImageOps.fit(rgb, SIZE, Image.Resampling.BOX))
        return resized
    raise StageError(f"{path}: not a readable image: {reason}; leave it out")


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


def predict(images: np.ndarray, names: list[str]) -> Iterator[Predictions]:
    """The predictions of these models for each of the images, (N, 32, 32, 3) uint8."""
    # Imported here, so that a wrong name or file is reported immediately.
    from stages.common.quiet_keras import keras
    from stages.training import model_file

    models = [model_file.load(paths.MODELS / f"{name}.keras") for name in names]
    probabilities: list[list[np.ndarray]] = [[] for _ in models]
    for batch in np.array_split(images, -(-len(images) // BATCH_SIZE)):
        x = scale(batch)
        for rows, model in zip(probabilities, models, strict=True):
            # Not `model.predict`, which traces again for the last batch and warns about it.
            rows.extend(keras.ops.convert_to_numpy(model(x, training=False)))
    for image_rows in zip(*probabilities, strict=True):
        yield {
            name: [(CLASSES[label], float(row[label])) for label in np.argsort(-row)[:TOP_CLASSES]]
            for name, row in zip(names, image_rows, strict=True)
        }


def as_text(path: Path, predictions: Predictions) -> str:
    """The predictions for one image, one line per model."""
    width = max(map(len, predictions))
    lines = [
        f"  {name:<{width}}  " + "  ".join(f"{label:<10} {100 * p:5.1f} %" for label, p in classes)
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


@one_line_errors
def main() -> None:
    parser = command_line.parser("stages.tools.predict", __doc__)
    parser.add_argument("images", nargs="+", type=Path, help="image files, or folders of them")
    parser.add_argument("--model", help="one model of params.yaml instead of all trained ones")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    arguments = parser.parse_args()

    names = trained_models(arguments.model)
    files = find(arguments.images)
    images = {}
    for file in tqdm(files, "reading", disable=None, leave=False):  # None: only in a terminal
        try:
            images[file] = read(file)
        except StageError as error:
            tqdm.write(str(error), sys.stderr)
    if not images:
        sys.exit(1)
    results = list(zip(images, predict(np.stack([*images.values()]), names), strict=True))
    if arguments.json:
        print(json.dumps([as_json(*result) for result in results], indent=1))
    else:
        print("\n".join(as_text(*result) for result in results))
    sys.exit(len(images) < len(set(files)))


if __name__ == "__main__":
    main()
