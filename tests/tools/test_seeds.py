"""The variation of test accuracies between seeds, read from real DVC experiments."""

import json
import sys
from typing import Any

import numpy as np

from stages.tools import seeds
from tests.params_edits import edited
from tests.repository import MODELS, Repository

SEEDS = [sys.executable, "-m", "stages.tools.seeds"]


def flat(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Parameters by their keys in `dvc exp show`."""
    items = {prefix + key: value for key, value in section.items()}
    sections = [flat(value, f"{key}.") for key, value in items.items() if isinstance(value, dict)]
    return {key: x for part in (items, *sections) for key, x in part.items()}


def settings_and_seeds(*runs: tuple[str, ...]) -> list[tuple[str, str]]:
    """Settings and seeds of the rows printed for experiments with these parameters."""
    experiments = [
        {
            "rev": str(number),
            "models/simple_cnn.keras": f"checksum {number}",
            "metrics/simple_cnn.json:accuracy": 0.5,
            **flat(edited(*edits)),
        }
        for number, edits in enumerate(runs)
    ]
    rows = seeds.table_rows(seeds.by_settings(experiments, ["simple_cnn"]))
    return [(row["settings"], row["seeds"]) for row in rows]


def test_only_settings_that_the_model_uses_separate_experiments() -> None:
    small = ("dataset=folder", "folder.image_size=32")
    assert settings_and_seeds(small, (*small, "seed=1", "sample.seed=3"), small[:1]) == [
        ("folder.image_size 32", "0, 1"),
        ("folder.image_size 64", "0"),
    ]
    unused = ("folder.image_size=32", "training.muon_momentum=0.5", "models.fast94.epochs=3")
    assert settings_and_seeds(("seed=0",), ("seed=1", *unused)) == [("", "0, 1")]


def test_queued_experiments_give_mean_and_spread_over_seeds(clone: Repository) -> None:
    metrics = json.loads((clone.path / "metrics/simple_cnn.json").read_text())
    by_seed = {0: metrics["accuracy"]}
    clone.check("dvc", "exp", "run", "--queue", "-S", "seed=1", "evaluate@simple_cnn")
    assert clone.check("dvc", "queue", "status").count("Queued") == 1
    clone.check("dvc", "exp", "run", "--run-all", "--jobs", "1")
    for baseline in json.loads(clone.check("dvc", "exp", "show", "--json")):
        for experiment in baseline["experiments"] or []:
            data = experiment["revs"][0]["data"]
            seed = data["params"]["params.yaml"]["data"]["seed"]
            metrics = data["metrics"]["metrics/simple_cnn.json"]["data"]
            by_seed[seed] = metrics["accuracy"]
    assert set(by_seed) == {0, 1}

    other_settings = ("-S", "models.simple_cnn.dropout=0.1", "-S", "epochs=2")
    clone.check("dvc", "exp", "run", *other_settings, "evaluate@simple_cnn")
    printed = clone.check(*SEEDS).splitlines()[2:]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed]
    accuracies = list(by_seed.values())
    assert table[0] == [
        "simple_cnn",
        "dropout 0.5, epochs 1",
        "0, 1",
        f"{np.mean(accuracies):.2%}",
        f"{np.std(accuracies, ddof=1):.2%}",
        f"{min(accuracies):.2%} to {max(accuracies):.2%}",
    ]
    assert table[1][:3] == ["simple_cnn", "dropout 0.1, epochs 2", "0"]
    # The other models were trained only once.
    assert [row[:3] for row in table[2:]] == [[model, "", "0"] for model in MODELS[1:]]


def test_commit_without_results_is_reported_in_one_line(clone: Repository) -> None:
    clone.check("git", "rm", "--quiet", "-r", "--cached", "metrics")
    clone.check("git", "commit", "--quiet", "--message", "no results")
    result = clone.run(*SEEDS)
    assert result.returncode == 1
    assert result.stderr.startswith("error: this commit has no results yet; commit")
    assert result.stderr.count("\n") == 1
