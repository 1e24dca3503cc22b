"""Print how test accuracies vary between seeds: `python -m stages.tools.seeds`.

Reads the results of the current commit and of its experiments, as listed by `dvc exp show`, and
prints mean, standard deviation (sample, n - 1) and range of each model's test accuracy over the
seeds. Experiments that differ in anything but the seed have rows of their own.
"""

import statistics
from collections import defaultdict
from typing import Any

import dvc.api
from dvc.exceptions import DvcException

from stages.common import command_line, params, paths
from stages.common.errors import StageError
from stages.common.stage_settings import used_by_stages
from stages.reporting.markdown import markdown_table

Settings = tuple[tuple[str, Any], ...]
Accuracies = dict[tuple[str, Settings], dict[int, float]]  # by (model, its settings) and seed


def nested(row: dict[str, Any]) -> dict[str, Any]:
    """The parameters in a row of `dvc exp show`, as params.yaml has them."""
    values: dict[str, Any] = {}
    for key, value in row.items():
        if value == "None" or "/" in key or ":" in key:  # of another experiment, or no parameter
            continue
        *parents, last = key.split(".")
        section = values
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    return values


def settings_of(row: dict[str, Any], model: str) -> Settings:
    """What decides a model's accuracy, given a row of `dvc exp show`, but for the seed."""
    values = nested(row)
    dataset = values["dataset"]
    settings = {"dataset": dataset, "validation_split": values["validation_split"]}
    settings |= {f"{dataset}.{key}": value for key, value in values.get(dataset, {}).items()}
    settings |= used_by_stages(values)[f"train/{model}"]
    return tuple((key, value) for key, value in settings.items() if key != "seed")


def by_settings(experiments: list[dict[str, Any]], models: list[str]) -> Accuracies:
    """Test accuracies by model, its settings and seed, given the rows of `dvc exp show`.

    An experiment that trained only some models still lists the others' earlier results, so each
    model file counts once, where it occurs first.
    """
    accuracies: Accuracies = defaultdict(dict)
    committed = [row for row in experiments if row["rev"] != "workspace"]
    for model in models:
        counted = set()
        for row in committed:
            # DVC leaves out the path where only one file has that metric.
            accuracy = row.get(f"{paths.METRICS}/{model}.json:accuracy", row.get("accuracy"))
            file = row.get(f"models/{model}.keras")
            if not isinstance(accuracy, float) or file in counted:  # queued ones have no number
                continue
            counted.add(file)
            accuracies[model, settings_of(row, model)][int(row["seed"])] = accuracy
    return accuracies


def table_rows(accuracies: Accuracies) -> list[dict[str, str]]:
    """The table's rows by heading; settings are those in which rows of a model differ."""
    rows = []
    for (model, settings), by_seed in accuracies.items():
        others = [other for name, other in accuracies if name == model and other != settings]
        differing = [item for item in settings if any(item not in other for other in others)]
        values = list(by_seed.values())
        rows.append(
            {
                "model": model,
                "settings": ", ".join(
                    f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
                    for key, value in differing
                ),
                "seeds": ", ".join(map(str, sorted(by_seed))),
                "mean accuracy": f"{statistics.mean(values):.2%}",
                "standard deviation": f"{statistics.stdev(values):.2%}" if values[1:] else "",
                "range": f"{min(values):.2%} to {max(values):.2%}",
            }
        )
    return rows


def main() -> None:
    models = list(params.load().models)
    try:
        experiments = dvc.api.exp_show()
    except DvcException as error:
        raise StageError(f"the experiments cannot be read: {error}") from None
    rows = table_rows(by_settings(experiments, models))
    if not rows:
        raise StageError(
            "this commit has no results yet; commit those of `dvc repro`, or run experiments: "
            "`dvc exp run --queue -S seed=0,1,2`, then `dvc exp run --run-all`"
        )
    print(markdown_table(rows, text_columns=3))


if __name__ == "__main__":
    command_line.run_stage(main, "stages.tools.seeds", __doc__)
