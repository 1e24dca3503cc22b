"""What each stage uses of params.yaml: the files in data/settings/, which the stages depend on."""

import json
from collections.abc import Mapping
from typing import Any

from stages.common import params, paths
from stages.common.errors import StageError, reading


def used_by_stages(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What each stage uses of params.yaml, given as plain dictionaries.

    A stage's settings have no parameter that changes nothing: none of another data set, and none of
    Muon for a model that another optimizer trains.
    """
    dataset, shared = values["dataset"], params.shared_settings(values, values["training"])
    fetch: dict[str, Any] = {"dataset": dataset}
    weights: dict[str, Any] = {"weights": "imagenet"}
    preprocess = {"dataset": dataset, "validation_split": values["validation_split"]}
    if dataset == "sample":
        preprocess |= values["sample"]
        weights = {"weights": "random", "seed": values["sample"]["seed"]}
    elif dataset == "folder":
        for key, value in values["folder"].items():
            stage = preprocess if key in ("image_size", "skip_unreadable") else fetch
            stage[key] = value
    used = {"fetch": fetch, "fetch_weights": weights, "preprocess": preprocess}
    for name, entry in values["models"].items():
        settings = {"seed": values["seed"], **shared, **entry}
        used[f"train/{name}"] = {
            key: value
            for key, value in sorted(settings.items())
            if settings["optimizer"] == "muon" or not key.startswith("muon_")
        }
    return used


def load(stage: str | None = None) -> params.Params:
    """Read and check params.yaml, for a stage that depends on data/settings/STAGE.json, or on all.

    Raises `StageError` if such a file does not say the same, as params.yaml was edited after the
    settings stage ran: DVC would record results under settings that they do not have.
    """
    settings = params.load()
    used = used_by_stages(settings.model_dump())
    if stage and stage not in used:
        raise StageError(f"{paths.PARAMS}: no entry for {stage}; there are {', '.join(used)}")
    for name in [stage] if stage else used:
        file = paths.SETTINGS / f"{name}.json"
        with reading(file):
            written = json.loads(file.read_text(encoding="utf-8"))
        if written != used[name]:
            raise StageError(
                f"{file}: does not say what {paths.PARAMS} does; run `dvc repro`, without "
                "--single-item"
            )
    return settings
