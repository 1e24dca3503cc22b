"""Model files: equal models have equal bytes, and reading one runs no code from it."""

import json
import re
import time
import zipfile
from pathlib import Path

from stages.common.atomic import atomic_write
from stages.common.errors import StageError, reading
from stages.common.quiet_keras import keras


def check_clock() -> None:
    """Raise `StageError` if the clock is before 1980, with which Keras cannot write its zip files.

    For the beginning of training, as a model is saved at its end.
    """
    if (year := time.localtime().tm_year) < 1980:
        raise StageError(f"this machine's clock says {year}; set it, then run it again")


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
    """Read a `.keras` file; raises `StageError` if it is damaged.

    The model maps images (N, height, width, 3) to (N, classes) and is not compiled, because the
    file has no optimizer variables.
    """
    with reading(path):
        return keras.models.load_model(path, compile=False, safe_mode=True)
