"""What DVC does with the pipeline: the real `dvc` on a small trained repository."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Repository

MODELS = ["simple_cnn", "complex_cnn", "resnet50_scratch", "resnet50_finetune", "fast94"]
TRAININGS = {f"train@{model}" for model in MODELS}


def test_repro_leaves_every_result_and_a_clean_status(trained: Repository) -> None:
    for model in MODELS:
        assert (trained.path / f"models/{model}.keras").is_file()
        assert trained.epochs_recorded(model) == 1
        assert (trained.path / f"data/evaluations/{model}/probabilities.npy").is_file()
    for picture in ["comparison", "accuracy_by_minutes", "learning_curves", "confusion_matrices"]:
        content = (trained.path / f"metrics/{picture}.png").read_bytes()
        assert content.startswith(b"\x89PNG")
    assert trained.check("git", "status", "--porcelain") == ""
    assert not (trained.path / "models/checkpoints/simple_cnn").exists()
    assert not list(trained.path.glob("**/.partial-*"))


def test_the_sample_says_loudly_that_nothing_is_real(trained: Repository) -> None:
    output = trained.first_run  # type: ignore[attr-defined]
    assert "NOTICE: dataset: sample, generated images" in output
    assert "RANDOM WEIGHTS" in output


def test_second_repro_runs_no_stage(clone: Repository) -> None:
    assert clone.stages_run("repro") == []


def test_dropout_reruns_only_that_model(clone: Repository) -> None:
    ran = clone.stages_run("exp", "run", "--set-param", "models.simple_cnn.dropout=0.3")
    assert ran == ["train@simple_cnn", "evaluate@simple_cnn", "compare"]

    shown = clone.check("dvc", "exp", "show", "--csv")
    assert "simple_cnn.accuracy" in shown
    assert "0.3" in shown

    # The experiment's results stay in the workspace; on a branch they compare with main's.
    clone.check("git", "checkout", "--quiet", "-b", "less-dropout")
    clone.check("git", "commit", "--quiet", "--all", "--message", "less dropout")
    changes = json.loads(clone.check("dvc", "metrics", "diff", "main", "--all", "--json"))
    assert set(changes) >= {f"metrics/{model}.json" for model in MODELS}
    loss = changes["metrics/simple_cnn.json"]["simple_cnn.loss"]
    assert set(loss) == {"old", "new", "diff"}
    assert loss["diff"] != 0
    assert changes["metrics/complex_cnn.json"]["complex_cnn.loss"]["diff"] == 0
    params = json.loads(clone.check("dvc", "params", "diff", "main", "--json"))
    assert params["params.yaml"]["models.simple_cnn.dropout"]["new"] == 0.3
    for command in (["show"], ["diff", "main"]):
        clone.check("dvc", "plots", *command, "--out", "plots")
        page = (clone.path / "plots/index.html").read_text()
        for text in ["Accuracy by epoch", "Loss by epoch", "comparison.png"]:
            assert text in page
        for model in MODELS:
            assert f"{model}: what is taken for what" in page
            assert f"{model}: accuracy by class" in page
            assert f"{model}/plots/metrics/val_loss.tsv" in page


@pytest.mark.parametrize("model", MODELS)
def test_an_architectures_file_concerns_only_its_model(clone: Repository, model: str) -> None:
    file = clone.path / f"stages/architectures/{model}.py"
    file.write_text(file.read_text() + "\n# changed\n")
    assert clone.changed_stages() == {f"train@{model}"}


def test_chart_code_reruns_compare_alone(clone: Repository) -> None:
    file = clone.path / "stages/support/charts.py"
    file.write_text(file.read_text().replace("Accuracy on the test pictures", "Another title"))
    before = (clone.path / "metrics/comparison.png").read_bytes()
    assert clone.stages_run("repro") == ["compare"]
    assert (clone.path / "metrics/comparison.png").read_bytes() != before


def test_other_pretrained_weights_concern_only_the_finetuned_model(clone: Repository) -> None:
    file = clone.path / "data/weights/imagenet/resnet50_notop.weights.h5"
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content + b"other")
    assert clone.changed_stages() == {"fetch_weights", "train@resnet50_finetune"}


def test_epochs_concern_the_trainings_and_nothing_before(clone: Repository) -> None:
    clone.set_params(epochs=30)
    assert clone.changed_stages() == {*TRAININGS, "compare"}
    clone.set_params(epochs=1, models__simple_cnn__epochs=2)
    assert clone.changed_stages() == {"train@simple_cnn", "compare"}
    assert clone.stages_run("repro", "evaluate@simple_cnn") == [
        "train@simple_cnn",
        "evaluate@simple_cnn",
    ]
    assert clone.epochs_recorded("simple_cnn") == 2


def test_queued_seeds_run_one_after_the_other_and_tell_their_spread(clone: Repository) -> None:
    metrics = json.loads((clone.path / "metrics/simple_cnn.json").read_text())
    found = {0: metrics["simple_cnn"]["accuracy"]}
    clone.check("dvc", "exp", "run", "--queue", "-S", "seed=1,2", "evaluate@simple_cnn")
    assert clone.check("dvc", "queue", "status").count("Queued") == 2
    clone.check("dvc", "exp", "run", "--run-all", "--jobs", "1")
    for baseline in json.loads(clone.check("dvc", "exp", "show", "--json")):
        for experiment in baseline["experiments"] or []:
            data = experiment["revs"][0]["data"]
            seed = data["params"]["params.yaml"]["data"]["seed"]
            metrics = data["metrics"]["metrics/simple_cnn.json"]["data"]
            found[seed] = metrics["simple_cnn"]["accuracy"]
    assert set(found) == {0, 1, 2}

    dropout = ("-S", "models.simple_cnn.dropout=0.1", "-S", "epochs=2")
    clone.check("dvc", "exp", "run", *dropout, "evaluate@simple_cnn")
    printed = clone.check(sys.executable, "-m", "stages.seeds").splitlines()[2:]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed]
    accuracies = list(found.values())
    assert table[0] == [
        "simple_cnn",
        "epochs 1, dropout 0.5",
        "0, 1, 2",
        f"{np.mean(accuracies):.2%}",
        f"{np.std(accuracies, ddof=1):.2%}",
        f"{min(accuracies):.2%} to {max(accuracies):.2%}",
    ]
    assert table[1][:3] == ["simple_cnn", "epochs 2, dropout 0.1", "0"]
    # No other model was trained again, so of those there is one each.
    assert [row[:3] for row in table[2:]] == [[model, "", "0"] for model in MODELS[1:]]


def test_without_results_seeds_says_what_to_do(clone: Repository) -> None:
    clone.check("git", "rm", "--quiet", "-r", "--cached", "metrics")
    clone.check("git", "commit", "--quiet", "--message", "no results")
    result = clone.run(sys.executable, "-m", "stages.seeds")
    assert result.returncode == 1
    assert result.stderr.startswith("error: this commit has no results yet; commit")
    assert result.stderr.count("\n") == 1


def test_two_trainings_started_at_once_both_finish(clone: Repository, tmp_path: Path) -> None:
    # Without --single-item DVC 3.67 also locks the unchanged stages before these, and the second
    # command ends with "is busy" (https://github.com/treeverse/dvc/issues/11054).
    clone.set_params(models__simple_cnn__dropout=0.4, models__complex_cnn__dropout=0.4)
    running = {
        model: clone.start("dvc", "repro", "--single-item", f"train@{model}", log=tmp_path / model)
        for model in ("simple_cnn", "complex_cnn")
    }
    for model, process in running.items():
        assert process.wait(timeout=300) == 0, (tmp_path / model).read_text()
    assert clone.changed_stages().isdisjoint(TRAININGS)


def test_another_model_is_one_file_and_one_entry(clone: Repository) -> None:
    (clone.path / "stages/architectures/linear.py").write_text(
        "import keras\n\n\n"
        "def build(*, width: int) -> keras.Model:\n"
        "    return keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten(),\n"
        "        keras.layers.Dense(width), keras.layers.Dense(10, activation='softmax')])\n"
    )
    clone.set_params(models__linear={"weights": "random", "learning_rate": 0.01, "width": 4})
    assert clone.stages_run("repro") == ["train@linear", "evaluate@linear", "compare"]
    assert "| linear " in (clone.path / "metrics/report.md").read_text()
    assert "metrics/linear.json" in clone.check("dvc", "metrics", "show")
