"""The rows of the comparison's tables, as dictionaries by heading."""

from collections.abc import Iterable, Mapping, Sequence

from stages.common.params import ModelParams, Params, shared_settings
from stages.dataset import training_length
from stages.dataset.description import Description
from stages.dataset.splits import validation_count
from stages.reporting.model_results import ModelResult
from stages.reporting.statistics import Pair

MAX_CONFUSIONS = 10  # per model
SPLITS = {"train": "training", "validation": "validation", "test": "test"}

Pairs = Mapping[tuple[str, str], Pair]  # by the names of the two models


def baseline(result: ModelResult) -> str:
    """What needs no model: guessing, or naming the largest class each time."""
    return "always the largest class" if result.unequal_classes else "chance"


def models(results: Sequence[ModelResult], settings: Params) -> list[dict[str, str]]:
    """One row per model; with unequal classes also balanced accuracies, and a row for the largest.

    The notebook's accuracies are added if the images are the notebook's.
    """

    def balanced(result: ModelResult) -> dict[str, str]:
        if not result.unequal_classes:
            return {}
        return {"balanced accuracy": f"{result.balanced_accuracy:.2%}"}

    def notebook(name: str) -> dict[str, str]:
        accuracies = settings.notebook
        if not accuracies:
            return {}
        return {"notebook": f"{accuracies[name]:.2%}" if name in accuracies else ""}

    rows = [
        {
            "model": result.name,
            "test accuracy": f"{result.accuracy:.2%}",
            "95 % interval": f"{result.interval.low:.1%} to {result.interval.high:.1%}",
            **balanced(result),
            **{f"top {k}": f"{value:.2%}" for k, value in result.top_k_accuracy.items()},
            "test loss": f"{result.loss:.4f}",
            "calibration error": f"{result.reliability.expected_calibration_error:.1%}",
            "parameters": f"{result.parameters:,}",
        }
        | notebook(result.name)
        for result in results
    ]
    if results[0].unequal_classes:
        rows.append(
            dict.fromkeys(rows[0], "")
            | {
                "model": baseline(results[0]),
                "test accuracy": f"{results[0].largest_class_accuracy:.2%}",
                "balanced accuracy": f"{1 / len(results[0].classes):.2%}",
            }
        )
    return rows


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


def class_images(data: Description, index: int) -> dict[str, str]:
    """A class's name and the number of its images in each split."""
    counts = {
        f"{title} images": f"{data.images[split][index]:,}" for split, title in SPLITS.items()
    }
    return {"class": data.classes[index], **counts}


def class_accuracy(result: ModelResult, index: int) -> str:
    """The accuracy of a class and its interval in percent; empty without test images."""
    if not result.confusion_matrix[index].any():
        return ""
    low, high = result.class_intervals[index]
    return f"{result.class_accuracies[index]:.1%} ({100 * low:.1f}\N{EN DASH}{100 * high:.1f})"


def classes(
    results: Sequence[ModelResult], data: Description, order: Iterable[int]
) -> list[dict[str, str]]:
    """One row per class of `order`: the number of its images, and its accuracy per model."""
    return [
        class_images(data, index)
        | {result.name: class_accuracy(result, index) for result in results}
        for index in order
    ]


def confusions(result: ModelResult) -> list[dict[str, str]]:
    """One row per pair of classes that a model confuses most often.

    Sorted by the number of images. In parentheses their share of the true class.
    """
    images = result.confusion_matrix.sum(axis=1)
    return [
        {
            "true": result.classes[true],
            "predicted": result.classes[predicted],
            "images": f"{count:,} ({count / images[true]:.1%})",
        }
        for true, predicted, count in result.confusions(MAX_CONFUSIONS)
    ]


def shared_params(settings: Params) -> list[dict[str, object]]:
    """One row per parameter that applies to every model unless its entry overrides it."""
    values = settings.model_dump()
    data = {key: values[key] for key in ("dataset", "seed", "validation_split")}
    if settings.dataset == "folder":
        data |= {f"folder.{key}": value for key, value in values["folder"].items()}
    shared = data | shared_settings(values, values["training"])
    return [{"parameter": name, "value": value} for name, value in shared.items()]


def fitted(model: ModelParams, data: Description) -> tuple[ModelParams, int]:
    """A model's settings as it was trained with them, and the number of its training images."""
    training, validation = (sum(data.images[split]) for split in ("train", "validation"))
    count = training + validation - validation_count(validation, model)
    return training_length.fit_to(model, count), count


def model_params(settings: Params, data: Description) -> list[dict[str, object]]:
    """One row per parameter that a model's entry sets or overrides, one column per model.

    Batch size and epochs are those that the model was trained with.
    """
    shared = shared_settings(settings.model_dump(), settings.training.model_dump())
    # The sample has no images that ImageNet's weights would be useful for: they are random.
    substitutes = {"weights": "random"} if settings.dataset == "sample" else {}
    entries = {
        name: {
            key: value
            for key, value in {**fitted(model, data)[0].model_dump(), **substitutes}.items()
            if key not in shared or value != shared[key]
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
