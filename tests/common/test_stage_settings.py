"""What each stage uses of params.yaml: a parameter concerns only the stages that use it."""

import re
import shutil
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from stages import settings
from stages.common import params, stage_settings
from stages.common.errors import StageError
from tests.faults import assert_one_line
from tests.params_edits import PARAMS, edited
from tests.repository import Repository

MODELS = {f"train/{name}" for name in PARAMS["models"]}
# The stages whose settings an edit changes, by data set.
CHANGED = {
    "cifar10": {
        "dataset=cifar100": {"fetch", "preprocess"},
        "dataset=sample": {"fetch", "fetch_weights", "preprocess"},
        "dataset=folder": {"fetch", "preprocess"},
        "validation_split=0.2": {"preprocess"},
        "seed=1": MODELS,
        "epochs=3": MODELS - {"train/fast94", "train/resnet50_tuned"},  # they have their own
        "training.momentum=0.8": MODELS - {"train/fast94"},
        "training.min_batches=0": MODELS,
        "training.muon_momentum=0.5": {"train/fast94"},  # Muon trains no other
        "models.simple_cnn.muon_bias_lr_multiplier=2.0": set(),
        "models.simple_cnn.optimizer=muon": {"train/simple_cnn"},
        "folder.path=mine": set(),
        "sample.seed=1": set(),
        "notebook_accuracy.simple_cnn=0.1": set(),  # compare depends on all of params.yaml
    },
    "folder": {
        "folder.path=mine": {"fetch"},
        "folder.test_split=0.3": {"fetch"},
        "folder.seed=1": {"fetch"},
        "folder.image_size=48": {"preprocess"},
        "folder.skip_unreadable=true": {"preprocess"},
        "sample.images_per_file=50": set(),
    },
    "sample": {
        "sample.images_per_file=50": {"preprocess"},
        "sample.seed=1": {"fetch_weights", "preprocess"},
    },
}


def edit_params(*edits: str) -> None:
    """Write params.yaml with edits, for a folder of images."""
    for name in ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"):
        file = Path("data/images", name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    Path("params.yaml").write_text(yaml.safe_dump(edited("dataset=folder", *edits)))


def test_parameter_changes_the_settings_of_those_stages_alone_that_use_it() -> None:
    for dataset, changed in CHANGED.items():
        before = stage_settings.used_by_stages(edited(f"dataset={dataset}"))
        assert set(before) == {"fetch", "fetch_weights", "preprocess", *MODELS}
        for edit, expected in changed.items():
            after = stage_settings.used_by_stages(edited(f"dataset={dataset}", edit))
            assert {stage for stage in after if after[stage] != before[stage]} == expected, edit


def test_settings_are_written_for_each_stage_and_removed_with_a_model(project: Path) -> None:
    def stages() -> set[str]:
        folder = project / "data/settings"
        return {str(file.relative_to(folder).with_suffix("")) for file in folder.rglob("*.json")}

    settings.main()
    assert stages() == {"fetch", "fetch_weights", "preprocess", *MODELS}
    assert stage_settings.load("train/fast94") == params.load()
    edit_params("~models.fast94")
    settings.main()
    assert stages() == {"fetch", "fetch_weights", "preprocess", *MODELS} - {"train/fast94"}


@pytest.mark.usefixtures("project")
def test_stage_run_alone_refuses_edited_parameters_that_it_uses() -> None:
    edit_params()
    settings.main()
    for stage, arguments, file, edit in (
        ("fetch", (), "fetch", "folder.path=mine"),
        ("fetch_weights", (), "fetch_weights", "dataset=sample"),
        ("preprocess", (), "preprocess", "folder.image_size=48"),
        ("train", ("simple_cnn",), "train/simple_cnn", "models.simple_cnn.dropout=0.4"),
    ):
        edit_params(edit)
        with pytest.raises(StageError) as caught:
            import_module(f"stages.{stage}").main(*arguments)
        assert str(caught.value) == (
            f"error: data/settings/{file}.json: does not say what params.yaml does; "
            "run `dvc repro`, without --single-item"
        )
    edit_params("training.muon_momentum=0.5", "models.simple_cnn.dropout=0.4")
    assert stage_settings.load("train/complex_cnn").training.muon_momentum == 0.5
    Path("data/settings/fetch.json").write_text("{")
    with pytest.raises(StageError, match=r"data/settings/fetch.json: damaged: .*run `dvc repro`"):
        stage_settings.load("fetch")


def test_wrong_folder_of_images_ends_in_one_line_before_anything_is_fetched(
    clone: Repository, tmp_path: Path
) -> None:
    (tmp_path / "home/flowers").mkdir(parents=True)  # DVC would look for a folder named ~
    remedy = "set folder.path in params.yaml to"
    for path, message in {
        "data/flowers": f"data/flowers: there is no such folder; {remedy} that of images",
        "README.md": f"README.md: is not a folder; {remedy} that of images",
        "docs": "docs: has 0 folders of images, but classes must be 2 to 1,000; ",
        "~/flowers": f"~/flowers: ~ is not expanded; {remedy} {tmp_path}/home/flowers",
    }.items():
        clone.set_params("dataset=folder", f"folder.path={path}")
        result = clone.run("dvc", "repro", HOME=str(tmp_path / "home"))
        assert_one_line(result, f"error: {message}", status=255)
        assert re.findall(r"Running stage '([\w@]+)'", result.stdout) == ["settings"]


def test_folder_that_dvc_tracks_is_checked_once_it_is_there(clone: Repository) -> None:
    folder = clone.path / "data/flowers"
    for name in ("daisy", "rose"):
        (folder / name).mkdir(parents=True)
        (folder / name / "1.txt").touch()
    clone.check("dvc", "add", "--quiet", "data/flowers")
    clone.set_params("dataset=folder", "folder.path=data/flowers")
    assert "no images, but 2 files" in clone.run("dvc", "repro", "settings").stderr
    shutil.rmtree(folder)
    assert clone.stages_run("repro", "settings") == ["settings"]
