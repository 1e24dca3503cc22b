"""Edits of params.yaml, spelt as in `dvc exp run -S`, for tests of what is refused."""

from pathlib import Path

import yaml

from tests.repository import Repository

INVALID_TYPES = {"list": "[1]", "mapping": "{a: 1}", "date": "2026-01-01", "null": "null"}


def edit_params(folder: Path, edit: str) -> None:
    """Set a key of params.yaml, as in "models.fast94.epochs=2", or remove it: "~epochs"."""
    if not edit.startswith("~"):
        Repository(folder).set_params(edit)
        return
    file = folder / "params.yaml"
    params = yaml.safe_load(file.read_text())
    *parents, last = edit.removeprefix("~").split(".")
    section = params
    for parent in parents:
        section = section[parent]
    del section[last]
    file.write_text(yaml.safe_dump(params, sort_keys=False))


def invalid_edits(key: str, out_of_range: str) -> dict[str, str]:
    """Edits that make a required key invalid, each with the beginning of the error."""
    edits = {f"{key}={value}": key for value in INVALID_TYPES.values()}
    edits[f"{key}={out_of_range}"] = f"{key}: "
    edits[f"~{key}"] = f"{key}: missing"
    *parents, _ = key.split(".")
    unknown = ".".join([*parents, "unknown_key"])
    edits[f"{unknown}=[]"] = unknown
    return edits
