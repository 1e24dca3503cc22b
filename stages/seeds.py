"""Say how much the seed matters: `python -m stages.seeds`, after `dvc exp run` with several.

Reads the commit's results and those of its finished experiments, as `dvc exp show` lists them, and
prints each model's test accuracy over the seeds: mean, standard deviation (of a sample, n - 1) and
range. Experiments that differ in anything but the seed stand in rows of their own.
"""

import statistics
from collections import defaultdict
from typing import Any

import dvc.api
from dvc.exceptions import DvcException

from stages.support import params
from stages.support.errors import StageError, one_line_errors
from stages.support.report import markdown_table

SHARED = ["dataset", "validation_split", *params.Training.model_fields]
Settings = tuple[tuple[str, Any], ...]
Accuracies = dict[tuple[str, Settings], dict[int, float]]


def by_settings(experiments: list[dict[str, Any]], models: list[str]) -> Accuracies:
    """Test accuracy by model, its settings and the seed, given the rows of `dvc exp show`.

    An experiment that ran for some models only still shows the others, as they were: each model's
    file counts once, where it comes first.
    """
    accuracies: Accuracies = defaultdict(dict)
    recorded = [row for row in experiments if row["rev"] != "workspace"]
    for model in models:
        seen = set()
        for row in recorded:
            accuracy, file = row.get(f"{model}.accuracy"), row.get(f"models/{model}.keras")
            if not isinstance(accuracy, float) or file in seen:  # queued ones have no number
                continue
            seen.add(file)
            settings = tuple(
                (key.removeprefix(f"models.{model}."), value)
                for key, value in row.items()
                if (key in SHARED or key.startswith(f"models.{model}.")) and value != "None"
            )
            accuracies[model, settings][int(row["seed"])] = accuracy
    return accuracies


def rows(accuracies: Accuracies) -> list[dict[str, str]]:
    """The table's rows, by heading, with the settings in which a model's rows differ."""
    found = []
    for (model, settings), by_seed in accuracies.items():
        others = [other for name, other in accuracies if name == model and other != settings]
        own = [item for item in settings if any(item not in other for other in others)]
        values = list(by_seed.values())
        found.append(
            {
                "model": model,
                "settings": ", ".join(
                    f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
                    for key, value in own
                ),
                "seeds": ", ".join(map(str, sorted(by_seed))),
                "mean accuracy": f"{statistics.mean(values):.2%}",
                "standard deviation": f"{statistics.stdev(values):.2%}" if values[1:] else "",
                "range": f"{min(values):.2%} to {max(values):.2%}",
            }
        )
    return found


@one_line_errors
def main() -> None:
    models = list(params.load().models)
    try:
        experiments = dvc.api.exp_show()
    except DvcException as error:
        raise StageError(f"the experiments cannot be read: {error}") from None
    table = rows(by_settings(experiments, models))
    if not table:
        raise StageError(
            "this commit has no results yet; commit those of `dvc repro`, or run experiments: "
            "`dvc exp run --queue -S seed=0,1,2`, then `dvc exp run --run-all`"
        )
    print(markdown_table(table, text_columns=3))


if __name__ == "__main__":
    main()
