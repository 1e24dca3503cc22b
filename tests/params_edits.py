"""Edits of params.yaml, spelt as in `dvc exp run -S`, for tests of what is refused."""

import copy
from typing import Any

import yaml

from stages.common.params import ModelParams, Params
from tests.repository import ROOT

PARAMS: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
WRONG_TYPES = ("[1]", "{a: 1}", "2026-01-01", "null")


def edited(*edits: str) -> dict[str, Any]:
    """The project's parameters with keys set, as in "seed=1", or removed, as in "~seed"."""
    values = copy.deepcopy(PARAMS)
    for edit in edits:
        key, _, value = edit.removeprefix("~").partition("=")
        *parents, last = key.split(".")
        section = values
        for parent in parents:
            section = section[parent]
        if edit.startswith("~"):
            del section[last]
        else:
            section[last] = yaml.safe_load(value)
    return values


def edited_model(name: str, *edits: str) -> ModelParams:
    """A model of the project's parameters with keys set."""
    return Params.model_validate(edited(*edits)).model(name)


def invalid_edits(key: str, out_of_range: str) -> dict[str, str]:
    """Edits that make a required key invalid, each with the beginning of the error."""
    edits = {f"{key}={value}": key for value in WRONG_TYPES}
    edits |= {f"{key}={out_of_range}": f"{key}: ", f"~{key}": f"{key}: missing"}
    unknown = f"{key.rpartition('.')[0]}.unknown_key".removeprefix(".")
    return edits | {f"{unknown}=[]": unknown}
