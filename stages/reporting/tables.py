"""The rows of the comparison's tables, as dictionaries by heading."""

from collections.abc import Mapping, Sequence

from stages.common.params import SHARED_KEYS, Params
from stages.reporting.model_results import ModelResult
from stages.reporting.statistics import Pair

Pairs = Mapping[tuple[str, str], Pair]  # by the names of the two models


def models(results: Sequence[ModelResult], settings: Params) -> list[dict[str, str]]:
    """One row per model, with the notebook's accuracies if the images are the notebook's."""

    def notebook(name: str) -> dict[str, str]:
        accuracies = settings.notebook
        if not accuracies:
            return {}
        return {"notebook": f"{accuracies[name]:.2%}" if name in accuracies else ""}

    return [
        {
            "model": result.name,
            "test accuracy": f"{result.accuracy:.2%}",
            "95 % interval": f"{result.interval.low:.1%} to {result.interval.high:.1%}",
            "top 2": f"{result.top2_accuracy:.2%}",
            "test loss": f"{result.loss:.4f}",
            "calibration error": f"{result.reliability.expected_calibration_error:.1%}",
            "parameters": f"{result.parameters:,}",
        }
        | notebook(result.name)
        for result in results
    ]


def pairs(compared: Pairs) -> list[dict[str, str]]:
    """One row per pair of models."""
    return [
        {
            "first": names[0],
            "second": names[1],
            "only first correct": f"{pair.only_first:,}",
            "only second correct": f"{pair.only_second:,}",
            "p": f"{pair.p_value:.2g}" if pair.p_value > 1e-99 else "< 1e-99",
        }
        for names, pair in compared.items()
    ]


def class_accuracies(results: Sequence[ModelResult]) -> list[dict[str, str]]:
    """One row per class, one column per model."""
    return [
        {"class": name}
        | {result.name: f"{result.class_accuracies[index]:.1%}" for result in results}
        for index, name in enumerate(results[0].classes)
    ]


def shared_params(settings: Params) -> list[dict[str, object]]:
    """One row per parameter that applies to every model unless its entry overrides it."""
    keys = ("dataset", "seed", "validation_split", "epochs", "batch_size")
    shared = {key: getattr(settings, key) for key in keys} | settings.training.model_dump()
    return [{"parameter": name, "value": value} for name, value in shared.items()]


def model_params(settings: Params) -> list[dict[str, object]]:
    """One row per parameter that a model's entry sets or overrides, one column per model."""
    shared = {row["parameter"]: row["value"] for row in shared_params(settings)}
    # The sample has no images that ImageNet's weights would be useful for: they are random.
    substitutes = {"weights": "random"} if settings.dataset == "sample" else {}
    entries = {
        name: {
            key: value
            for key, value in {**model.model_dump(), **substitutes}.items()
            if key not in SHARED_KEYS or value != shared[key]
        }
        for name, model in settings.models.items()
    }
    keys = dict.fromkeys(key for entry in entries.values() for key in entry)
    return [
        {"parameter": key, **{name: entry.get(key, "") for name, entry in entries.items()}}
        for key in keys
    ]


def provenance(results: Sequence[ModelResult]) -> list[dict[str, str]]:
    """One row per model file, one column per package of any of them."""
    packages = dict.fromkeys(package for result in results for package in result.software)
    return [
        {
            "model": result.name,
            **{package: result.software.get(package, "") for package in packages},
            "SHA-256 of models/MODEL.keras": result.sha256,
        }
        for result in results
    ]
