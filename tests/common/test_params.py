"""`params.yaml`: whatever is invalid in it ends in one line with the key and what is allowed."""

from pathlib import Path

import pytest

from stages.common import params
from stages.common.errors import StageError
from tests.params_edits import PARAMS, edited, invalid_edits
from tests.repository import Repository

CNN = "models.simple_cnn"
# Every required key, with a value next to the allowed ones. The arguments of `build` are tested in
# training/test_network.py.
OUT_OF_RANGE = f"""
    dataset=imagenet folder.path='' folder.image_size=31 folder.test_split=0.0 folder.seed=-1
    folder.skip_unreadable=1 sample.images_per_file=10001 sample.seed={2**32} seed=-1
    validation_split=1.0 epochs=100001 batch_size=0 training.validation_share=0.0
    training.min_validation_images=0 training.min_batches=-1 training.min_batch_size=0
    training.min_steps=0 training.recompute_batch_norm_below=-1
    training.precision=float16 training.fused_kernels=1 training.optimizer=adamw
    training.momentum=1.0 training.muon_lr_multiplier=0.0 training.muon_momentum=1.0
    training.muon_bias_lr_multiplier=0.0 training.weight_decay=1.5 training.lr_schedule=step
    training.warmup_fraction=1.0 training.label_smoothing=-0.1 training.ema_decay=1.0
    training.flip=vertical training.translate=32 training.frozen_batch_norm_epochs=-1
    training.tta_views=3 {CNN}.architecture=vgg {CNN}.weights=imagenet21k {CNN}.learning_rate=10.5
"""
SECTIONS = ("folder", "sample", "training", "notebook_accuracy", "models", CNN)
OTHER_INVALID_EDITS = {
    "epochs='15'": "epochs: '15': Input should be a valid integer",
    "epochs=true": "epochs: True: Input should be a valid integer",
    "momentum=0.9": "momentum: 0.9: Extra inputs are not permitted",  # belongs under `training`
    "training.epochs=3": "training.epochs: 3: Extra inputs are not permitted",
    f"{CNN}.learning_rate=.inf": f"{CNN}.learning_rate: inf: Input should be ",
    f"{CNN}.epochs=0": f"{CNN}.epochs: 0: Input should be greater than or equal to 1",
    f"{CNN}.tta_views=3": f"{CNN}.tta_views: 3: Input should be 1, 2 or 6",
    "models.fast94.warmup_fraction=0.1": "models.fast94.warmup_fraction: 0.1: Input should be 0",
    "notebook_accuracy.simple_cnn=1.0": "notebook_accuracy.simple_cnn: 1.0: Input should be less",
}
# Replaced in params.yaml, and the error.
INVALID_TEXTS = (
    ("  seed", "\tseed", "line 6: not valid YAML: "),
    ("epochs: 15", "epochs: 15\nepochs: 3", 'line 15: not valid YAML: found duplicate key "'),
    ("epochs: 15", "epochs: 2026-02-30", "not valid YAML: day is out of range"),
    ("epochs: 15", "1: 2", "Keys should be strings"),
    ("epochs: 15", '"a\\e]0;b\\a": 1', "a?]0;b?: 1: Extra inputs"),
    ("epochs: 15", f"epochs: {'x' * 50_000}", "epochs: 'xxxx"),
)


def refusal() -> str:
    """The error in which loading params.yaml ends: one line."""
    with pytest.raises(StageError) as caught:
        params.load()
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 900
    return message


@pytest.mark.usefixtures("project")
def test_project_trains_the_notebooks_models_as_the_notebook_did() -> None:
    settings = params.load()
    assert (settings.epochs, settings.batch_size, settings.validation_split) == (15, 128, 0.1)
    assert settings.dataset == "cifar10"
    shared = {"epochs": 15, "batch_size": 128, **settings.training.model_dump()}
    del shared["recompute_batch_norm_below"]  # concerns few images: dataset/test_training_length.py
    for name in settings.notebook_accuracy:
        model = settings.model(name)
        assert model.learning_rate == 0.001
        assert model.model_dump(include=set(shared)) == shared
    assert settings.model("fast94").batch_size != settings.batch_size


@pytest.mark.usefixtures("project")
def test_invalid_value_of_every_key_is_refused_with_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = {x for x, value in PARAMS.items() if not isinstance(value, dict)} | set(SECTIONS)
    keys |= {f"{x}.{key}" for x in ("folder", "sample", "training") for key in PARAMS[x]}
    assert keys <= {edit.split("=")[0] for edit in OUT_OF_RANGE.split()} | set(SECTIONS)
    edits = dict(OTHER_INVALID_EDITS)
    for edit in OUT_OF_RANGE.split():
        edits |= invalid_edits(*edit.split("="))
    edits |= {f"{x}={value}": f"{x}: " for x in SECTIONS for value in ("null", "3", "a", "[]")}
    for edit, expected in edits.items():
        monkeypatch.setattr(params, "read_yaml", lambda edit=edit: edited(edit))
        message = refusal()
        assert message.startswith(f"error: params.yaml: {expected}"), edit
        assert any(x in message for x in (" should ", "missing", "not permitted", "; write it"))
    shown = ["dataset=x", "seed=-1", "epochs=0", "batch_size=0", "training.momentum=2.0"]
    values = edited(*shown, "training.translate=32", "training.flip=up")
    monkeypatch.setattr(params, "read_yaml", lambda: values)
    message = refusal()
    assert all(f"{edit.split('=')[0]}: " in message for edit in shown)
    assert message.endswith("; and 2 more")


def test_file_that_is_no_mapping_of_keys_is_refused_with_the_line(project: Path) -> None:
    file = project / "params.yaml"
    original = file.read_text()
    for old, new, expected in INVALID_TEXTS:
        file.write_text(original.replace(old, new, 1))
        assert expected in refusal()
    for text in ("", "- a"):
        file.write_text(text)
        assert "params.yaml: the file: " in refusal()
    file.write_bytes(b"\xff\xfe\x00")
    assert "params.yaml: not valid YAML" in refusal()
    file.unlink()
    assert "params.yaml: No such file or directory; run from the repository's root" in refusal()


@pytest.mark.usefixtures("project")
def test_names_of_models_and_architectures_fit_modules_files_and_stages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rule = ": a name is up to 100 letters, digits and underscores, beginning with a letter; rename"
    for name in ("../train", "simple_cnn.py", "", "a b", "é", "-h", "1a", "_a", "a@b", "a" * 101):
        for values in (
            PARAMS | {"models": PARAMS["models"] | {name: {}}},
            PARAMS | {"notebook_accuracy": {name: 0.5}},
            edited(f"{CNN}.architecture='{name}'"),
        ):
            monkeypatch.setattr(params, "read_yaml", lambda values=values: values)
            assert rule in refusal(), name


@pytest.mark.usefixtures("project")
def test_architecture_without_a_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    values = edited("models.big={architecture: vgg, weights: random}")
    monkeypatch.setattr(params, "read_yaml", lambda: values)
    message = refusal()
    assert (
        "models.big.architecture: 'vgg': there is no stages/architectures/vgg.py; write it and "
        "`git add` it, or correct the name"
    ) in message
    assert "models.big.learning_rate: missing" in message


@pytest.mark.usefixtures("project")
def test_models_are_named_freely(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = PARAMS["models"]["simple_cnn"]
    values = edited(f"models.mine={entry}", "notebook_accuracy.theirs=0.5")
    monkeypatch.setattr(params, "read_yaml", lambda: values)
    settings = params.load()
    assert settings.model("mine") == settings.model("simple_cnn")
    assert settings.notebook["theirs"] == 0.5


def test_experiment_with_an_invalid_value_ends_in_the_first_stage(clone: Repository) -> None:
    result = clone.run("dvc", "exp", "run", "--set-param", "epochs=0")
    assert result.returncode == 255
    message = "error: params.yaml: epochs: 0: Input should be greater than or equal to 1"
    assert [line for line in result.stderr.splitlines() if "error:" in line] == [message]
    assert "Traceback" not in result.stderr
    assert result.stdout.count("Running stage") == 1
