"""Users' own images: read as a person sees them, classified with the evaluation's probabilities."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.common.errors import StageError
from stages.sources.cifar import CLASSES
from stages.tools import predict
from tests.faults import assert_one_line
from tests.repository import MODELS, ROOT, Repository
from tests.sources.test_image_files import damaged_tiff

PREDICT = [sys.executable, "-m", "stages.tools.predict"]


def test_named_files_and_the_images_of_folders_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("folder/b.png", "folder/a.jpg", "folder/notes.txt", "phone/1.HEIC"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    files = predict.find([tmp_path / "folder/notes.txt", tmp_path / "folder"])
    assert [path.name for path in files] == ["notes.txt", "a.jpg", "b.png"]
    notice = "NOTICE: 1 file without an image's suffix is left out: 1 .txt\n"
    assert capsys.readouterr().err == notice
    (tmp_path / "empty").mkdir()
    for folder, message in {
        "empty": "no images; add some, with a suffix such as .jpg, or name another folder",
        "phone": r"no images, but 1 file with other suffixes \(1 .heic\); convert them to JPEG or ",
    }.items():
        with pytest.raises(StageError, match=f"/{folder}: {message}"):
            predict.find([tmp_path / folder])


def test_empty_name_is_refused() -> None:
    result = Repository(ROOT).run(*PREDICT, "")
    assert_one_line(result, "error: the name of an image is empty; name a file or a folder")


def test_images_are_read_some_at_a_time_and_unreadable_ones_reported(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in range(8):
        Image.new("L", (8, 8), number).save(tmp_path / f"{number}.png")
    damaged_tiff(tmp_path / "2.png")
    files = sorted(tmp_path.iterdir())
    batches = [*predict.read_batches(files, (512, 512))]
    assert [[int(path.stem) for path in batch] for batch in batches] == [[0, 1], [3, 4, 5], [6, 7]]
    assert all((x == int(path.stem)).all() for batch in batches for path, x in batch.items())
    (error,) = capfd.readouterr().err.splitlines()  # not libtiff's as well
    assert error.startswith(f"error: {tmp_path}/2.png: not a readable image: decoder error")


def test_text_is_aligned_and_without_control_characters() -> None:
    name = Path(os.fsdecode(b"k\xe4se\x1b[2J.png"))  # Latin-1, and the code that clears the screen
    first, second = [("猫", 0.5), ("naïve", 0.5)], [("cat", 0.7), ("dog", 0.3)]
    title, *lines = predict.as_text(name, {"cnn": first, "other": second}).splitlines()
    assert title == "k?se?[2J.png"
    assert lines[0].index("%") + 1 == lines[1].index("%")  # the cat takes two columns


def test_test_images_get_the_evaluations_probabilities(trained: Repository, tmp_path: Path) -> None:
    x = np.load(trained.path / "data/test/x.npy", mmap_mode="r")
    for number in range(3):
        Image.fromarray(x[number]).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.png").write_text("not an image")
    result = trained.run(*PREDICT, "--json", str(tmp_path))
    assert result.returncode == 1  # because of the broken one
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "broken.png" in errors[0]

    predicted = json.loads(result.stdout)
    assert [item["image"] for item in predicted] == [str(tmp_path / f"{n}.png") for n in range(3)]
    for number, item in enumerate(predicted):
        assert list(item["models"]) == MODELS
        for model, top_classes in item["models"].items():
            folder = trained.path / "data/evaluations" / model
            expected = np.load(folder / "probabilities.npy")[number]
            order = np.argsort(-expected)[:3]
            assert [entry["class"] for entry in top_classes] == [CLASSES[label] for label in order]
            for entry, label in zip(top_classes, order, strict=True):
                assert entry["probability"] == pytest.approx(expected[label], abs=1e-6)


def test_text_output_names_image_models_and_classes(clone: Repository, tmp_path: Path) -> None:
    image = tmp_path / "mine.png"
    Image.new("RGB", (64, 64)).save(image)
    (clone.path / "models/fast94.keras").unlink()
    result = clone.run(*PREDICT, str(image))
    assert result.returncode == 0
    assert result.stderr == "not trained yet: run `dvc repro train@fast94`\n"
    first, *lines = result.stdout.splitlines()
    assert first == str(image)
    assert [line.split()[0] for line in lines] == [m for m in MODELS if m != "fast94"]
    assert all(line.count(" %") == 3 for line in lines)


def test_missing_models_are_reported_in_one_line(
    clone: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    for model in MODELS:
        (clone.path / f"models/{model}.keras").unlink()
    monkeypatch.chdir(clone.path)
    for name, message in (
        (None, "models: not trained yet: run `dvc repro train@simple_cnn train@resnet50_finetune "),
        ("fast94", "fast94: not trained yet: run `dvc repro train@fast94`"),
        ("alexnet", "params.yaml: there is no model 'alexnet'; models are "),
    ):
        with pytest.raises(StageError, match=f"error: {message}"):
            predict.trained_models(name)
