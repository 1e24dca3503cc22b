"""The variation of test accuracies between seeds, read from real DVC experiments."""

import json
import sys
from typing import Any

import numpy as np

from stages.tools import seeds
from tests.repository import MODELS, Repository

SEEDS = [sys.executable, "-m", "stages.tools.seeds"]


def test_only_settings_of_the_data_set_in_use_separate_experiments() -> None:
    def row(seed: int, dataset: str, image_size: int) -> dict[str, Any]:
        return {
            "rev": f"{dataset}{image_size}{seed}",
            "seed": seed,
            "dataset": dataset,
            "folder.image_size": image_size,
            "sample.seed": 7 * image_size,
            "models/simple_cnn.keras": f"checksum {dataset} {image_size} {seed}",
            "metrics/simple_cnn.json:accuracy": 0.5,
        }

    rows = [row(0, "folder", 32), row(1, "folder", 32), row(0, "folder", 64)]
    rows += [row(0, "cifar10", 32), row(1, "cifar10", 64)]
    accuracies = seeds.by_settings(rows, ["simple_cnn"])
    assert {settings: [*by_seed] for (_, settings), by_seed in accuracies.items()} == {
        (("dataset", "folder"), ("folder.image_size", 32)): [0, 1],
        (("dataset", "folder"), ("folder.image_size", 64)): [0],
        (("dataset", "cifar10"),): [0, 1],
    }


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
        "epochs 1, dropout 0.5",
        "0, 1",
        f"{np.mean(accuracies):.2%}",
        f"{np.std(accuracies, ddof=1):.2%}",
        f"{min(accuracies):.2%} to {max(accuracies):.2%}",
    ]
    assert table[1][:3] == ["simple_cnn", "epochs 2, dropout 0.1", "0"]
    # The other models were trained only once.
    assert [row[:3] for row in table[2:]] == [[model, "", "0"] for model in MODELS[1:]]


def test_commit_without_results_is_reported_in_one_line(clone: Repository) -> None:
    clone.check("git", "rm", "--quiet", "-r", "--cached", "metrics")
    clone.check("git", "commit", "--quiet", "--message", "no results")
    result = clone.run(*SEEDS)
    assert result.returncode == 1
    assert result.stderr.startswith("error: this commit has no results yet; commit")
    assert result.stderr.count("\n") == 1
