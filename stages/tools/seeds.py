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
from stages.common.errors import StageError, one_line_errors
from stages.reporting.markdown import markdown_table

SHARED = {
    "dataset": "dataset",
    "validation_split": "validation_split",
    "epochs": "epochs",
    "batch_size": "batch_size",
    **{f"training.{key}": key for key in params.TrainingParams.model_fields},
}
Settings = tuple[tuple[str, Any], ...]
Accuracies = dict[tuple[str, Settings], dict[int, float]]  # by (model, its settings) and seed


def by_settings(experiments: list[dict[str, Any]], models: list[str]) -> Accuracies:
    """Test accuracies by model, its settings and seed, given the rows of `dvc exp show`.

    An experiment that trained only some models still lists the others' earlier results, so each
    model file counts once, where it occurs first.
    """
    accuracies: Accuracies = defaultdict(dict)
    committed = [row for row in experiments if row["rev"] != "workspace"]
    for model in models:
        counted = set()
        prefix = f"models.{model}."
        for row in committed:
            # DVC leaves out the path where only one file has that metric.
            accuracy = row.get(f"{paths.METRICS}/{model}.json:accuracy", row.get("accuracy"))
            file = row.get(f"models/{model}.keras")
            if not isinstance(accuracy, float) or file in counted:  # queued ones have no number
                continue
            counted.add(file)
            # The section of the data set, if it has settings, bears its name.
            sections = prefix, f"{row['dataset']}."
            settings = tuple(
                (SHARED.get(key, key.removeprefix(prefix)), value)
                for key, value in row.items()
                if (key in SHARED or key.startswith(sections)) and value != "None"
            )
            accuracies[model, settings][int(row["seed"])] = accuracy
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


@one_line_errors
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
    command_line.no_arguments("stages.tools.seeds", __doc__)
    main()
