"""Say what is on your own pictures: `python -m stages.predict PICTURE ... [--model NAME] [--json]`.

Reads pictures of any format and size, or whole folders of them, and models/. Prints the three
likeliest classes that each model sees. A file that is no picture is named on standard error, and
then the exit status is 1. Writes nothing.
"""

import argparse
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from stages.preprocess import prepare
from stages.support import params, paths
from stages.support.archive import CLASSES
from stages.support.errors import StageError, one_line_errors, printable

SIZE = 32, 32
LIKELIEST = 3
LARGEST = 200_000_000  # pixels; beyond, one file could fill the memory
Image.MAX_IMAGE_PIXELS = LARGEST  # Pillow warns above that and refuses twice as many
NOT_PICTURES = {"BUFR", "GRIB", "HDF5", "MPEG", "PDF"}  # endings Pillow knows but cannot read
BATCH_SIZE = 250  # pictures at once; changes nothing but speed and memory

Predictions = dict[str, list[tuple[str, float]]]  # by model: classes and probabilities


def find(given: list[Path]) -> list[Path]:
    """The picture files among these, and those below these folders, in alphabetical order.

    In a folder, whatever is hidden or has no picture's ending is passed over.
    """
    kinds = Image.registered_extensions()
    endings = {ending for ending, kind in kinds.items() if kind not in NOT_PICTURES}
    files = []
    for path in given:
        if not path.is_dir():
            files.append(path)
            continue
        found = [
            file
            for file in sorted(path.rglob("*"))
            if file.suffix.lower() in endings
            and file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        ]
        if not found:
            raise StageError(f"{path}: there is no picture in this folder; name another")
        files += found
    return files


def eight_bits(picture: Image.Image) -> Image.Image:
    """Mode L of a grey picture with 16 or 32 bits, which Pillow would cut off at 255.

    White is 65535, in floats 1; a picture with values beyond that or below 0, such as a
    measurement, goes from its least value to its greatest. NaN and infinity become 0.
    """
    values = np.nan_to_num(np.asarray(picture, np.float32), posinf=0, neginf=0)
    black, white = 0.0, 1.0 if picture.mode == "F" else 65535.0
    if values.min() < black or values.max() > white:
        black, white = float(values.min()), float(values.max())
    return Image.fromarray(np.interp(values, (black, white), (0, 255)).round().astype(np.uint8))


def to_rgb(picture: Image.Image) -> Image.Image:
    """The first frame of a picture in 8-bit RGB, upright, on white where it is transparent."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        picture = eight_bits(picture)
    if picture.has_transparency_data:
        upper = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", upper.size, "white"), upper).convert("RGB")
    return picture.convert("RGB")


def read(path: Path) -> np.ndarray:
    """The middle square of a picture, reduced to (32, 32, 3) uint8; `StageError` if it is none."""
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no file")  # to open a pipe could wait for ever
        with warnings.catch_warnings(action="ignore"), Image.open(path) as picture:
            if picture.width * picture.height > LARGEST:
                raise ValueError(f"it has more than {LARGEST:,} pixels")
            whole = to_rgb(picture)
    except UnidentifiedImageError:
        reason = "it is no picture that Pillow can read"
    except Exception as error:  # a damaged file raises whatever its format's reader does
        reason = getattr(error, "strerror", None) or f"{error!s:.200}"
    else:
        small: np.ndarray = np.asarray(ImageOps.fit(whole, SIZE, Image.Resampling.BOX))
        return small
    raise StageError(f"{path}: not a readable picture: {reason}; leave it out")


def trained(name: str | None) -> list[str]:
    """The models to ask: this one, or all that have been trained; the others are named."""
    settings = params.load()
    names = list(settings.models)
    if name:
        settings.model(name)
        names = [name]
    there = [name for name in names if (paths.MODELS / f"{name}.keras").is_file()]
    missing = [f"train@{name}" for name in names if name not in there]
    advice = f"not trained yet: run `dvc repro {' '.join(missing)}`"
    if not there:
        raise StageError(f"{name or 'models'}: {advice}")
    if missing:
        print(advice, file=sys.stderr)
    return there


def predict(pictures: np.ndarray, names: list[str]) -> Iterator[Predictions]:
    """What each of these models sees on each of the pictures, (N, 32, 32, 3) uint8."""
    # Here, so that a wrong name or a broken picture is said at once.
    from stages.support import model_file
    from stages.support.quietly import keras

    models = [model_file.load(paths.MODELS / f"{name}.keras") for name in names]
    probabilities: list[list[np.ndarray]] = [[] for _ in models]
    for batch in np.array_split(pictures, -(-len(pictures) // BATCH_SIZE)):
        x, _ = prepare(batch, np.zeros(len(batch), int))
        for rows, model in zip(probabilities, models, strict=True):
            # Called, since `predict` traces each model again for the last batch and says so.
            rows.extend(keras.ops.convert_to_numpy(model(x, training=False)))
    for rows in zip(*probabilities, strict=True):
        yield {
            name: [(CLASSES[label], float(row[label])) for label in np.argsort(-row)[:LIKELIEST]]
            for name, row in zip(names, rows, strict=True)
        }


def table(path: Path, predictions: Predictions) -> str:
    """One picture's table, a line a model."""
    width = max(map(len, predictions))
    lines = [
        f"  {name:<{width}}  " + "  ".join(f"{label:<10} {100 * p:5.1f} %" for label, p in classes)
        for name, classes in predictions.items()
    ]
    return "\n".join([printable(str(path)), *lines])


def as_json(path: Path, predictions: Predictions) -> dict[str, Any]:
    """The same for programs."""
    return {
        "picture": str(path),
        "models": {
            name: [{"class": label, "probability": p} for label, p in classes]
            for name, classes in predictions.items()
        },
    }


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.predict", description=__doc__)
    parser.add_argument("pictures", nargs="+", type=Path, help="picture files or folders of them")
    parser.add_argument("--model", help="one model of params.yaml instead of all that are trained")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    given = parser.parse_args()

    names = trained(given.model)
    files = find(given.pictures)
    # tqdm itself stays silent where standard error is no terminal.
    pictures = {}
    for file in tqdm(files, "reading", disable=None, leave=False):
        try:
            pictures[file] = read(file)
        except StageError as error:
            tqdm.write(str(error), sys.stderr)
    if not pictures:
        sys.exit(1)
    results = list(zip(pictures, predict(np.stack([*pictures.values()]), names), strict=True))
    if given.json:
        print(json.dumps([as_json(*result) for result in results], indent=1))
    else:
        print("\n".join(table(*result) for result in results))
    sys.exit(len(pictures) < len(set(files)))


if __name__ == "__main__":
    main()
