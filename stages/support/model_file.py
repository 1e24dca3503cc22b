"""Model files: equal models give equal bytes, and what is read was checked."""

import json
import re
import zipfile
from pathlib import Path

from stages.support.errors import StageError
from stages.support.files import replacing
from stages.support.quietly import keras


def save(model: keras.Model, path: Path) -> None:
    """Write a `.keras` file in which equal models are equal bytes.

    Keras puts in two things that differ each time: dates, and memory addresses as the identities of
    objects that layers share, which are numbered here instead.
    """
    numbers: dict[str, str] = {}

    def number(match: re.Match[str]) -> str:
        return match[1] + numbers.setdefault(match[2], str(len(numbers)))

    with replacing(path) as whole:
        dated = whole.with_name(f".dated-{path.name}")
        try:
            model.save(dated)
            with zipfile.ZipFile(dated) as source, zipfile.ZipFile(whole, "w") as target:
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
    """Read a `.keras` file without running code from it; `StageError` where it is no such model.

    The model maps (N, 32, 32, 3) to (N, 10) and is not compiled: the file has no optimizer state.
    """
    try:
        model: keras.Model = keras.models.load_model(path, compile=False, safe_mode=True)
        shapes = model.input_shape, model.output_shape
    except Exception as error:  # zip, JSON, HDF5 and Keras raise many kinds
        reason = f"not a readable model: {error}"
    else:
        if shapes == ((None, 32, 32, 3), (None, 10)):
            return model
        reason = f"maps {shapes[0]} to {shapes[1]}, not (None, 32, 32, 3) to (None, 10)"
    raise StageError(f"{path}: {reason:.300}; run `dvc repro --force train@{path.stem}`")
