"""Users' own images: read as a person sees them, classified with the evaluation's probabilities."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.common.errors import StageError
from stages.sources.archive import CLASSES
from stages.tools import predict
from tests.repository import MODELS, Repository

PREDICT = [sys.executable, "-m", "stages.tools.predict"]


def test_named_files_and_the_images_of_folders_are_read(tmp_path: Path) -> None:
    for name in ("folder/b.png", "folder/a.jpg", "folder/notes.txt", "empty/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    files = predict.find([tmp_path / "folder/notes.txt", tmp_path / "folder"])
    assert [path.name for path in files] == ["notes.txt", "a.jpg", "b.png"]
    with pytest.raises(StageError, match="empty: there is no image in this folder"):
        predict.find([tmp_path / "empty"])


def test_control_characters_in_a_file_name_do_not_reach_the_terminal() -> None:
    name = Path(os.fsdecode(b"k\xe4se\x1b[2J.png"))  # Latin-1, and the code that clears the screen
    assert predict.as_text(name, {"simple_cnn": [("cat", 0.5)]}).startswith("k?se?[2J.png\n")


def test_columns_are_aligned_whatever_the_classes_are_called() -> None:
    text = predict.as_text(
        Path("a.png"), {"cnn": [("猫", 0.5), ("naïve", 0.5)], "other": [("cat", 0.7), ("dog", 0.3)]}
    )
    _, first, second = text.splitlines()
    assert first.index("%") + 1 == second.index("%")  # the cat takes two columns


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", "cp1252"])
def test_json_shows_the_names_that_the_table_shows_and_escapes_the_others(encoding: str) -> None:
    for name, shown in [
        ("cat.png", True),
        ('a "b" \\.png', False),
        ("käse.png", encoding != "ascii"),
        ("貓🐈.png", encoding == "utf-8"),
        (os.fsdecode(b"k\xe4se.png"), False),  # Latin-1 in a file system of UTF-8 names
        ("\x1b[2J\n.png", False),  # clears the screen
        ("\x9b2J.png", False),  # likewise
        ("\u202egnp.exe", False),  # from right to left
        ("\u2028.png", False),
    ]:
        text = predict.readable_json({"image": name}, encoding)
        assert json.loads(text.encode(encoding).decode(encoding)) == {"image": name}
        assert (name in text) == shown
        assert text.replace("\n", "").isprintable()
        if shown:
            assert predict.as_text(Path(name), {"simple_cnn": []}).startswith(f"{name}\n")


def test_test_images_get_the_evaluations_probabilities(trained: Repository, tmp_path: Path) -> None:
    x = np.load(trained.path / "data/test/x.npy", mmap_mode="r")
    for number in range(3):
        pixels = (x[number] * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
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
    Image.new("RGB", (64, 64)).save(tmp_path / "mine.png")
    (clone.path / "models/fast94.keras").unlink()
    result = clone.run(*PREDICT, str(tmp_path / "mine.png"))
    assert result.returncode == 0
    assert result.stderr == "not trained yet: run `dvc repro train@fast94`\n"
    lines = result.stdout.splitlines()
    assert lines[0] == str(tmp_path / "mine.png")
    assert [line.split()[0] for line in lines[1:]] == [m for m in MODELS if m != "fast94"]
    assert all(line.count(" %") == 3 for line in lines[1:])


def test_missing_models_are_reported_in_one_line(clone: Repository, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "mine.png")
    for model in MODELS:
        (clone.path / f"models/{model}.keras").unlink()
    for arguments, message in [
        ((), "models: not trained yet: run `dvc repro train@simple_cnn train@resnet50_finetune "),
        (("--model", "fast94"), "fast94: not trained yet: run `dvc repro train@fast94`"),
        (("--model", "alexnet"), "params.yaml: there is no model 'alexnet'; models are "),
    ]:
        result = clone.run(*PREDICT, *arguments, str(tmp_path / "mine.png"))
        assert result.returncode == 1
        assert result.stderr.startswith(f"error: {message}")
        assert result.stderr.count("\n") == 1
