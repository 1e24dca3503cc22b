"""What DVC reruns after which change, in a small trained repository."""

import json
import re
import sys
from pathlib import Path
from typing import Any

from stages.training import model_file
from tests.faults import replace
from tests.repository import MODELS, ROOT, Repository, training_results

TRAIN_STAGES = {f"train@{model}" for model in MODELS}
EVALUATE_STAGES = {f"evaluate@{model}" for model in MODELS}
LINEAR_MODEL = """import keras


def build(*, width: int) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Flatten(),
            keras.layers.Dense(width),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
"""
LINEAR_ENTRY = "{architecture: linear, weights: random, learning_rate: 0.01, width: 4}"


def edit(*files: Path) -> None:
    """Change Python files without changing what they do."""
    for file in files:
        file.write_text(file.read_text() + "\n# changed\n")


def plot_page(repository: Repository, *command: str) -> tuple[str, dict[str, list[dict[str, Any]]]]:
    """The page of a `dvc plots` command, and the rows of each of its plots by title."""
    repository.check("dvc", "plots", *command, "--out", "plots")
    page = (repository.path / "plots/index.html").read_text()
    rows = {}
    for spec in re.findall(r"var spec = (\{.*\});", page):  # of Vega-Lite
        plot = json.loads(spec)
        title = plot["title"] if isinstance(plot["title"], str) else plot["title"]["text"]
        rows[title] = plot["data"]["values"]
    return page, rows


def test_repro_writes_all_results_and_leaves_git_clean(trained: Repository) -> None:
    for model in MODELS:
        assert (trained.path / f"models/{model}.keras").is_file()
        assert trained.epochs_recorded(model) == 1
        assert (trained.path / f"data/evaluations/{model}/probabilities.npy").is_file()
    for chart in ["comparison", "accuracy_by_minutes", "learning_curves", "confusion_matrices"]:
        content = (trained.path / f"metrics/{chart}.png").read_bytes()
        assert content.startswith(b"\x89PNG")
    assert trained.check("git", "status", "--porcelain") == ""
    assert not (trained.path / "models/checkpoints/simple_cnn").exists()
    assert not list(trained.path.glob("**/.partial-*"))


def test_repro_on_the_sample_says_that_nothing_is_real(first_run: tuple[Repository, str]) -> None:
    _, output = first_run
    assert "NOTICE: dataset: sample, generated images" in output
    assert "RANDOM WEIGHTS" in output


def test_changing_dropout_reruns_only_that_model(clone: Repository) -> None:
    ran = clone.stages_run("exp", "run", "--set-param", "models.simple_cnn.dropout=0.3")
    assert ran == ["settings", "train@simple_cnn", "evaluate@simple_cnn", "compare"]

    without_checksums = ("--only-changed", "--drop", "[^:]+/[^:]+$")  # as in docs/experiments.md
    shown = clone.check("dvc", "exp", "show", "--csv", *without_checksums)
    columns = shown.splitlines()[0].split(",")
    assert {"models.simple_cnn.dropout", "metrics/simple_cnn.json:loss"} <= set(columns)
    assert not [column for column in columns if "/" in column and ":" not in column]
    assert "0.3" in shown

    # The experiment's results stay in the workspace; committed to a branch, DVC compares them.
    clone.check("git", "checkout", "--quiet", "-b", "less-dropout")
    clone.check("git", "commit", "--quiet", "--all", "--message", "less dropout")
    changes = json.loads(clone.check("dvc", "metrics", "diff", "main", "--all", "--json"))
    assert set(changes) >= {f"metrics/{model}.json" for model in MODELS}
    loss = changes["metrics/simple_cnn.json"]["loss"]
    assert set(loss) == {"old", "new", "diff"}
    assert loss["diff"] != 0
    assert changes["metrics/fast94.json"]["loss"]["diff"] == 0
    params = json.loads(clone.check("dvc", "params", "diff", "main", "--json"))
    assert params["params.yaml"]["models.simple_cnn.dropout"]["new"] == 0.3
    for command, revisions in (
        (["show"], {"workspace"}),
        (["diff", "main"], {"main", "workspace"}),
    ):
        page, rows = plot_page(clone, *command)
        assert {row["rev"] for row in rows["loss by epoch"]} == revisions
        assert "comparison.png" in page
        for model in MODELS:
            assert {f"{model}: confusion matrix", f"{model}: accuracy by class"} <= set(rows)
            assert f"{model}/plots/metrics/val_loss.tsv" in page


def results(repository: Repository) -> dict[str, str]:
    """The SHA-256 of every result but training times: those of an earlier run are not kept."""
    files = repository.check("git", "ls-files", "metrics").splitlines()
    files = [file for file in files if "/provenance/" not in file and "minutes" not in file]
    for model in MODELS:
        files += [*training_results(model), f"data/evaluations/{model}/probabilities.npy"]
    return repository.digests([*files, "metrics/report.md"])


def repro(repository: Repository) -> list[str]:
    """Run `dvc repro`; returns the stages it ran, but for the settings after every change."""
    return [stage for stage in repository.stages_run("repro") if stage != "settings"]


def test_settings_of_earlier_runs_and_of_merged_branches_train_nothing_again(
    clone: Repository,
) -> None:
    original = results(clone)
    clone.check("git", "checkout", "--quiet", "-b", "simple")
    clone.set_params("models.simple_cnn.dropout=0.3")
    assert repro(clone) == ["train@simple_cnn", "evaluate@simple_cnn", "compare"]
    changed = results(clone)
    assert {file for file in original if changed[file] != original[file]} >= {
        "models/simple_cnn.keras",
        "metrics/curves/simple_cnn/plots/metrics/val_loss.tsv",
        "metrics/simple_cnn.json",
        "metrics/report.md",
        "metrics/comparison.png",
    }
    # Back and forth, with and without the lock file that belongs to the settings.
    clone.set_params("models.simple_cnn.dropout=0.5")
    assert repro(clone) == ["compare"]  # without a training time of simple_cnn
    assert results(clone) == original
    assert "not recorded for simple_cnn." in (clone.path / "metrics/report.html").read_text()
    clone.set_params("models.simple_cnn.dropout=0.3")
    clone.check("git", "checkout", "--quiet", "dvc.lock")
    assert repro(clone) == []
    assert results(clone) == changed
    clone.check("git", "commit", "--quiet", "--all", "--message", "simple_cnn")

    clone.check("git", "checkout", "--quiet", "main")
    assert repro(clone) == []
    assert results(clone) == original
    clone.set_params("notebook_accuracy.simple_cnn=0.5")
    assert repro(clone) == ["compare"]
    clone.check("git", "commit", "--quiet", "--all", "--message", "another notebook")
    # As in docs/remotes-and-teams.md. This combination has not been compared yet.
    clone.check("git", "checkout", "--quiet", "simple")
    assert "Merge conflict in dvc.lock" in clone.run("git", "merge", "main").stdout
    clone.check("git", "checkout", "--theirs", "dvc.lock", "metrics")
    assert repro(clone) == ["compare"]
    clone.check("git", "add", "dvc.lock", "metrics")
    clone.check("git", "commit", "--quiet", "--no-edit")
    trained = training_results("simple_cnn")
    assert clone.digests(trained) == {file: changed[file] for file in trained}
    assert clone.changed_stages() == set()


def test_metrics_are_one_row_per_model(clone: Repository) -> None:
    printed = clone.check("dvc", "metrics", "show", *(f"metrics/{model}.json" for model in MODELS))
    header, *rows = [line.split() for line in printed.splitlines()]
    assert header == ["Path", "accuracy", "loss"]
    assert [row[0] for row in rows] == [f"metrics/{model}.json" for model in MODELS]
    printed = clone.check("dvc", "metrics", "show")
    header, *rows = [line.split() for line in printed.splitlines()]
    assert header == ["Path", "accuracy", "loss", "step", "val_accuracy"]
    assert len(rows) == 2 * len(MODELS)


# The stages that are changed by an edit of these files; {"settings"} leads to equal settings.
CONCERNED = {
    **{f"stages/architectures/{model}.py": {f"train@{model}"} for model in MODELS},
    "stages/architectures/resnet50_imagenet.py": set(),  # of models that were removed
    "stages/dataset/description.py": {"preprocess", *TRAIN_STAGES, *EVALUATE_STAGES, "compare"},
    "stages/reporting/statistics.py": {*EVALUATE_STAGES, "compare"},
    "stages/reporting/[!s]*.py": {"compare"},
    "stages/common/*.py": {"settings"},
    "stages/tools/*.py": set(),
}
# What Python, desktops, editors, archives and storage devices leave in folders.
LEFT_BEHIND = [
    *("__pycache__/x.pyc", ".ipynb_checkpoints/x.py", "x.py~", "#x.py#", ".#x.py", ".x.py.swp"),
    *(".DS_Store", "._x.py", "Thumbs.db", "desktop.ini", "Desktop.ini", ".thumbnails/x.png"),
    *("__MACOSX/x.py", "@eaDir/x.py", "#recycle/x.py", "$RECYCLE.BIN/x.py"),
]


def test_editing_code_concerns_the_stages_that_run_it(clone: Repository) -> None:
    for pattern, stages in CONCERNED.items():
        edit(*clone.path.glob(pattern))
        assert clone.changed_stages() == stages, pattern
        clone.check("git", "checkout", "--quiet", "stages")
    for folder in ("dataset", "reporting", "sources", "training"):
        for name in LEFT_BEHIND:
            file = clone.path / "stages" / folder / name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(b"other")
    assert clone.changed_stages() == set()


def test_changing_a_chart_reruns_only_the_comparison(clone: Repository) -> None:
    file = clone.path / "stages/reporting/charts.py"
    file.write_text(file.read_text().replace("Test accuracy with 95 %", "Other title"))
    before = (clone.path / "metrics/comparison.png").read_bytes()
    assert clone.stages_run("repro") == ["compare"]
    assert (clone.path / "metrics/comparison.png").read_bytes() != before


def test_other_pretrained_weights_concern_only_the_pretrained_model(clone: Repository) -> None:
    file = clone.path / "data/weights/imagenet/resnet50_notop.weights.h5"
    replace(file, file.read_bytes() + b"other")
    assert clone.changed_stages() == {"fetch_weights", "train@resnet50_finetune"}


def test_changing_shared_epochs_reruns_only_the_models_that_use_them(clone: Repository) -> None:
    original = results(clone)
    ran = clone.stages_run("exp", "run", "--set-param", "epochs=2")
    using = ["simple_cnn", "resnet50_finetune"]  # fast94 overrides it
    trained = [f"train@{model}" for model in using]
    assert ran == ["settings", *trained, *(f"evaluate@{model}" for model in using), "compare"]
    assert [clone.epochs_recorded(model) for model in MODELS] == [2, 2, 1]
    params = json.loads(clone.check("dvc", "params", "diff", "--json"))
    assert params["params.yaml"] == {"epochs": {"old": 1, "new": 2, "diff": 1}}
    clone.set_params("epochs=1")
    assert repro(clone) == ["compare"]
    assert results(clone) == original


def test_parameter_that_no_model_uses_reruns_no_training(clone: Repository) -> None:
    clone.set_params("folder.image_size=32", "folder.seed=1")  # of another data set
    clone.set_params("models.simple_cnn.muon_momentum=0.3")  # of another optimizer
    assert clone.stages_run("repro") == ["settings", "compare"]


def test_stage_alone_refuses_settings_that_have_changed(clone: Repository) -> None:
    clone.set_params("models.simple_cnn.dropout=0.3")
    command = ("dvc", "repro", "--force", "--single-item", "train@simple_cnn")
    result = clone.run(*command)
    assert result.returncode != 0
    assert (
        "error: data/settings/train/simple_cnn.json: does not say what params.yaml does; "
        "run `dvc repro`, without --single-item\n"
    ) in result.stderr


def test_data_and_weights_return_from_the_cache(clone: Repository) -> None:
    clone.set_params("sample.seed=1")
    ran = clone.stages_run("repro", "preprocess", "fetch_weights")
    assert sorted(ran) == ["fetch_weights", "preprocess", "settings"]
    clone.set_params("sample.seed=0")
    assert clone.stages_run("repro", "preprocess", "fetch_weights") == []
    assert clone.changed_stages() == set()


def test_two_models_can_be_trained_at_the_same_time(clone: Repository, tmp_path: Path) -> None:
    # Without --single-item DVC 3.67 also locks the unchanged stages before these, and the second
    # command ends with "is busy" (https://github.com/treeverse/dvc/issues/11054).
    clone.set_params("models.simple_cnn.dropout=0.4", "models.fast94.learning_rate=0.1")
    clone.check("dvc", "repro", "settings")
    running = {
        model: clone.start("dvc", "repro", "--single-item", f"train@{model}", log=tmp_path / model)
        for model in ("simple_cnn", "fast94")
    }
    for model, process in running.items():
        assert process.wait(timeout=300) == 0, (tmp_path / model).read_text()
    assert clone.changed_stages().isdisjoint(TRAIN_STAGES)


def test_new_models_need_only_a_file_and_an_entry_each(clone: Repository) -> None:
    architecture = clone.path / "stages/architectures/linear.py"
    architecture.write_text(LINEAR_MODEL)
    names = {"narrow", "wide"}
    clone.set_params(f"models.narrow={LINEAR_ENTRY}", f"models.wide={LINEAR_ENTRY}")
    clone.set_params("models.wide.width=40")
    ran = {f"{stage}@{name}" for stage in ("train", "evaluate") for name in names}
    assert sorted(clone.stages_run("repro")) == sorted({"settings", *ran, "compare"})
    report = (clone.path / "metrics/report.md").read_text()
    shown = clone.check("dvc", "metrics", "show")
    page, rows = plot_page(clone, "show")
    for quantity in ("accuracy", "loss"):
        curves = rows[f"{quantity} by epoch"]
        assert {row["model"] for row in curves} == {*MODELS, *names}
        assert all(float(row[quantity]) >= 0 for row in curves)
    for name in names:
        assert f"| {name} " in report
        assert f"metrics/{name}.json" in shown
        assert f"{name}: confusion matrix" in rows
        assert f"{name}/plots/metrics/val_loss.tsv" in page
    parameters = [model_file.load(clone.path / f"models/{x}.keras").count_params() for x in names]
    assert sorted(parameters) == [4 * 3073 + 10 * 5, 40 * 3073 + 10 * 41]
    edit(architecture)
    assert clone.changed_stages() == {"train@narrow", "train@wide"}


def test_new_model_without_a_file_is_refused_before_any_stage(clone: Repository) -> None:
    entry = ("-S", "+models.new.weights=random", "-S", "+models.new.architecture=newer")
    result = clone.run("dvc", "exp", "run", *entry)
    assert result.returncode != 0
    assert re.findall(r"(?:Running stage|Stage) '([\w@]+)'", result.stdout) == ["settings"]
    assert (
        "error: params.yaml: models.new.architecture: 'newer': there is no "
        "stages/architectures/newer.py; write it and `git add` it, or correct the name; "
        "models.new.learning_rate: missing\n"
    ) in result.stderr
    assert "Traceback" not in result.stderr


def test_documented_commands_remove_a_model(clone: Repository) -> None:
    page = (ROOT / "docs/add-a-model.md").read_text().split("## Remove a model")[1]
    commands = [line.removeprefix("$ ") for line in page.splitlines() if line.startswith("$ ")]
    (clone.path / "metrics/fast94.json").write_text("{}")  # as after training: not committed
    clone.remove_other_models(["simple_cnn", "resnet50_finetune"])
    for command in commands[:-1]:  # the last one is optional, and asks
        clone.check("bash", "-c", command.replace("NAME", "fast94"))
    others = (":!benchmarks", ":!tests")
    left = clone.check("git", "ls-files", "*fast94*", *others).splitlines()
    assert left == ["stages/architectures/fast94.py"]
    assert "fast94" not in (clone.path / "metrics/report.md").read_text()
    for pattern in ("models/*fast94*", "data/evaluations/fast94", "metrics/**/*fast94*"):
        assert not list(clone.path.glob(pattern)), pattern


def test_folder_with_an_umlaut(clone: Repository, tmp_path: Path) -> None:
    repository = Repository(clone.path.rename(tmp_path / "Müller"))
    assert repository.changed_stages() == set()
    command = ("exp", "run", "settings", "--set-param", "sample.seed=1")
    assert repository.stages_run(*command) == ["settings"]
    # DVC 3.67 writes the cache's path as ASCII for a temporary folder: docs/experiments.md.
    (repository.path / ".dvc/cache").rename(tmp_path / "cache")
    repository.check("dvc", "cache", "dir", "--local", str(tmp_path / "cache"))
    assert repository.changed_stages().isdisjoint(TRAIN_STAGES)
    repository.check("dvc", "exp", "run", "--temp", "preprocess", "--set-param", "sample.seed=2")


def test_outputs_that_a_failed_stage_lost_return_from_the_cache(clone: Repository) -> None:
    before = clone.digests(training_results("simple_cnn"))
    architecture = "stages/architectures/simple_cnn.py"
    (clone.path / architecture).write_text("raise ValueError\n")
    assert clone.run("dvc", "repro", "--single-item", "train@simple_cnn").returncode != 0
    assert not (clone.path / "models/simple_cnn.keras").exists()
    clone.check("git", "checkout", "--quiet", architecture)
    clone.check("git", "checkout", "--quiet", "dvc.lock", "metrics")  # as in docs/trust.md
    clone.check("dvc", "checkout")
    assert clone.digests(training_results("simple_cnn")) == before
    assert clone.changed_stages() == set()


def test_git_adds_no_output_of_a_new_model_whose_training_failed(clone: Repository) -> None:
    (clone.path / "stages/architectures/linear.py").write_text(LINEAR_MODEL)
    clone.set_params(f"models.linear={LINEAR_ENTRY}", "models.linear.learning_rate=-1")
    assert clone.run("dvc", "repro", "train@linear").returncode != 0
    outputs = ("models/linear.keras", "data/evaluations/linear", "metrics/predictions/linear.csv")
    for output in outputs:
        (clone.path / output).touch()
    added = re.findall("add '(.*)'", clone.check("git", "add", "--all", "--dry-run"))
    assert added == ["params.yaml", "stages/architectures/linear.py"]
    assert clone.check("git", "ls-files", ":(glob)**/.gitignore").split() == [
        ".dvc/.gitignore",
        ".gitignore",
    ]


def test_stages_that_compute_nothing_do_not_import_tensorflow() -> None:
    script = (
        "import sys\n"
        "from stages import compare, fetch, fetch_weights, preprocess\n"
        "assert 'keras' not in sys.modules\n"
        "import keras\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    Repository(ROOT).check(sys.executable, "-c", script, KERAS_BACKEND="numpy")
