"""Model files: equal models have equal bytes, and files are checked when read."""

import json
import re
import zipfile
from pathlib import Path

from stages.common.atomic import atomic_write
from stages.common.errors import StageError
from stages.common.quiet_keras import keras


def save(model: keras.Model, path: Path) -> None:
    """Write a `.keras` file whose bytes depend on the model alone.

    Keras writes two things that differ between runs: dates, which are fixed here, and memory
    addresses as identities of shared objects, which are numbered instead.
    """
    numbers: dict[str, str] = {}

    def number(match: re.Match[str]) -> str:
        return match[1] + numbers.setdefault(match[2], str(len(numbers)))

    with atomic_write(path) as partial:
        dated = partial.with_name(f".dated-{path.name}")
        try:
            model.save(dated)
            with zipfile.ZipFile(dated) as source, zipfile.ZipFile(partial, "w") as target:
                for name in sorted(source.namelist()):
                    content = source.read(name)
                    if name == "metadata.json":
                        metadata = json.loads(content)
                        del metadata["date_saved"]
                        content = json.dumps(metadata).encode()
                    elif name == "config.json":
                        identity = r'("shared_object_id": )(\d+)'
                        content = re.sub(identity, number, content.decode()).encode()
                    target.writestr(zipfile.ZipInfo(name), content)  # dated 1980-01-01
        finally:
            dated.unlink(missing_ok=True)


def load(path: Path) -> keras.Model:
    """Read a `.keras` file without running code from it.

    The model maps images (N, height, width, 3) to (N, classes) and is not compiled, because the
    file has no optimizer variables. Raises `StageError` if it is no such model.
    """
    try:
        model: keras.Model = keras.models.load_model(path, compile=False, safe_mode=True)
        shapes = model.input_shape, model.output_shape
    except Exception as error:  # zip, JSON, HDF5 and Keras raise many types
        reason = f"not a readable model: {error}"
    else:
        match shapes:
            case (None, int(), int(), 3), (None, int()):
                return model
        reason = f"maps {shapes[0]} to {shapes[1]}, not images to classes"
    raise StageError(f"{path}: {reason:.300}; {retrain(path)}")


def check_shapes(
    model: keras.Model, path: Path, image_shape: tuple[int, ...], classes: int
) -> None:
    """Raise `StageError` unless the model in that file fits these images and classes."""
    shapes, expected = (
        (model.input_shape, model.output_shape),
        ((None, *image_shape), (None, classes)),
    )
    if shapes != expected:
        raise StageError(
            f"{path}: maps {shapes[0]} to {shapes[1]}, not {expected[0]} to {expected[1]}; "
            f"{retrain(path)}"
        )


def retrain(path: Path) -> str:
    """What to do if a model's file is wrong."""
    return f"run `dvc repro --force train@{path.stem}`"
