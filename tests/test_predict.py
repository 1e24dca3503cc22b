"""One's own pictures: read as a person sees them, and classified as the evaluation does."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages import predict
from stages.support.archive import CLASSES
from stages.support.errors import StageError
from tests.conftest import Repository
from tests.test_pipeline import MODELS

PREDICT = [sys.executable, "-m", "stages.predict"]
RED, GREEN, WHITE = (200, 30, 30), (30, 200, 30), (255, 255, 255)


def two_halves(mode: str = "RGB", size: tuple[int, int] = (64, 64)) -> Image.Image:
    """Red above green."""
    picture = Image.new("RGB", size, RED)
    picture.paste(GREEN, (0, size[1] // 2, *size))
    return picture.convert(mode)


def transparent() -> Image.Image:
    """Red above nothing: black pixels that are not to be seen."""
    picture = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    picture.paste((*RED, 255), (0, 0, 64, 32))
    return picture


def rotated(path: Path) -> None:
    """Lying on its side, with the tag by which cameras say so."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    two_halves().rotate(90).save(path, exif=exif, quality=95)


def animated(path: Path) -> None:
    two_halves().save(path, save_all=True, append_images=[Image.new("RGB", (64, 64))])


def grey(bits: int) -> Image.Image:
    """Light grey above dark grey: 0.8 and 0.2 of white."""
    levels = np.repeat([0.8, 0.2], 32)[:, None] * (2**bits - 1) * np.ones(64)
    return Image.fromarray(levels.astype(np.uint8 if bits == 8 else np.uint16))


def measured(low: float, high: float, dtype: type) -> Image.Image:
    """0.8 and 0.2 of the way between two values, which both occur in the middle."""
    levels = np.repeat([0.8, 0.2], 32)[:, None] * np.ones(64)
    levels = np.insert(levels, 32, [[1], [0]], axis=0)
    return Image.fromarray((low + (high - low) * levels).astype(dtype))


def in_the_middle(picture: Image.Image) -> Image.Image:
    """With as much blue on its left and on its right."""
    wide = Image.new("RGB", (3 * picture.width, picture.height), "blue")
    wide.paste(picture, (picture.width, 0))
    return wide


LIGHT, DARK = (204, 204, 204), (51, 51, 51)
FORMATS: dict[str, tuple[str, Callable[[Path], None], tuple[int, ...], tuple[int, ...]]] = {
    "PNG": ("a.png", lambda path: two_halves().save(path), RED, GREEN),
    "JPEG": ("a.jpg", lambda path: two_halves().save(path, quality=95), RED, GREEN),
    "JPEG for print": (
        "a.jpg",
        lambda path: two_halves("CMYK").save(path, quality=95),
        RED,
        GREEN,
    ),
    "JPEG on its side": ("a.jpg", rotated, RED, GREEN),
    "WebP": ("a.webp", lambda path: two_halves().save(path, lossless=True), RED, GREEN),
    "animated GIF": ("a.gif", animated, RED, GREEN),
    "palette": ("a.png", lambda path: two_halves().quantize(4).save(path), RED, GREEN),
    "transparent": ("a.png", lambda path: transparent().save(path), RED, WHITE),
    "transparent palette": (
        "a.png",
        lambda path: transparent().quantize(4).save(path),
        RED,
        WHITE,
    ),
    "grey": ("a.png", lambda path: grey(8).save(path), LIGHT, DARK),
    "grey of 16 bits": ("a.png", lambda path: grey(16).save(path), LIGHT, DARK),
    "floats from 0 to 1": (
        "a.tif",
        lambda path: measured(0, 1, np.float32).save(path),
        LIGHT,
        DARK,
    ),
    "a measurement": ("a.tif", lambda path: measured(-40, 60, np.float32).save(path), LIGHT, DARK),
    "grey of 32 bits": ("a.tif", lambda path: measured(0, 1e6, np.int32).save(path), LIGHT, DARK),
    "large": ("a.png", lambda path: two_halves(size=(3000, 3000)).save(path), RED, GREEN),
    "tiny": ("a.png", lambda path: two_halves(size=(2, 2)).save(path), RED, GREEN),
    # Of a wide picture its middle is taken, nothing is squeezed.
    "wide": (
        "a.png",
        lambda path: in_the_middle(two_halves()).save(path),
        RED,
        GREEN,
    ),
}


@pytest.mark.parametrize(("name", "write", "above", "below"), FORMATS.values(), ids=FORMATS.keys())
def test_a_picture_is_read_as_a_person_sees_it(
    tmp_path: Path,
    name: str,
    write: Callable[[Path], None],
    above: tuple[int, ...],
    below: tuple[int, ...],
) -> None:
    write(tmp_path / name)
    pixels = predict.read(tmp_path / name)
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8
    for half, colour in ((pixels[:15], above), (pixels[17:], below)):
        assert abs(half.astype(int) - colour).max() <= 8


def test_what_is_no_picture_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_halves().save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no picture")
    for name, reason in [
        ("cut.png", "not a readable picture: "),
        ("text.png", "it is no picture that Pillow can read"),
        ("nowhere.png", "No such file or directory"),
    ]:
        with pytest.raises(StageError, match=f"{name}.*{reason}"):
            predict.read(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(StageError, match=r"pipe.png.*it is no file"):  # and does not wait
        predict.read(tmp_path / "pipe.png")
    monkeypatch.setattr(predict, "LARGEST", 64 * 64 - 1)
    with pytest.raises(StageError, match="more than 4,095 pixels"):
        predict.read(tmp_path / "whole.png")


def test_a_folder_gives_its_pictures_in_order(tmp_path: Path) -> None:
    for name in (
        "b.png",
        "a.JPG",
        "deeper/c.webp",
        ".hidden.png",
        ".thumbnails/d.png",
        "film.mpg",
        "e.pdf",
        "notes.txt",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = predict.find([tmp_path / "notes.txt", tmp_path])
    assert [str(path.relative_to(tmp_path)) for path in found] == [
        "notes.txt",  # named, so it is up to `read` to refuse it
        "a.JPG",
        "b.png",
        "deeper/c.webp",
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(StageError, match="empty: there is no picture in this folder"):
        predict.find([tmp_path / "empty"])


def test_a_files_name_cannot_command_the_terminal() -> None:
    name = Path(os.fsdecode(b"k\xe4se\x1b[2J.png"))  # Latin-1, and what clears the screen
    assert predict.table(name, {"simple_cnn": [("cat", 0.5)]}).startswith("k?se?[2J.png\n")


def test_a_test_picture_gets_the_evaluations_probabilities(
    trained: Repository, tmp_path: Path
) -> None:
    x = np.load(trained.path / "data/test/x.npy", mmap_mode="r")
    for number in range(3):
        pixels = (x[number] * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.png").write_text("no picture")
    result = trained.run(*PREDICT, "--json", str(tmp_path))
    assert result.returncode == 1  # one of them could not be read, and is named
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "broken.png" in errors[0]

    predicted = json.loads(result.stdout)
    assert [item["picture"] for item in predicted] == [str(tmp_path / f"{n}.png") for n in range(3)]
    for number, item in enumerate(predicted):
        assert list(item["models"]) == MODELS
        for model, likeliest in item["models"].items():
            folder = trained.path / "data/evaluations" / model
            expected = np.load(folder / "probabilities.npy")[number]
            order = np.argsort(-expected)[:3]
            assert [entry["class"] for entry in likeliest] == [CLASSES[label] for label in order]
            for entry, label in zip(likeliest, order, strict=True):
                assert entry["probability"] == pytest.approx(expected[label], abs=1e-6)


def test_a_table_names_picture_models_and_classes(clone: Repository, tmp_path: Path) -> None:
    two_halves().save(tmp_path / "mine.png")
    (clone.path / "models/complex_cnn.keras").unlink()
    result = clone.run(*PREDICT, str(tmp_path / "mine.png"))
    assert result.returncode == 0
    assert result.stderr == "not trained yet: run `dvc repro train@complex_cnn`\n"
    lines = result.stdout.splitlines()
    assert lines[0] == str(tmp_path / "mine.png")
    assert [line.split()[0] for line in lines[1:]] == [m for m in MODELS if m != "complex_cnn"]
    assert all(line.count(" %") == 3 for line in lines[1:])


def test_models_that_are_not_there_are_said_before_anything_is_loaded(
    clone: Repository, tmp_path: Path
) -> None:
    two_halves().save(tmp_path / "mine.png")
    for model in MODELS:
        (clone.path / f"models/{model}.keras").unlink()
    for arguments, message in [
        ((), "models: not trained yet: run `dvc repro train@simple_cnn train@complex_cnn "),
        (("--model", "complex_cnn"), "complex_cnn: not trained yet: run `dvc repro train@complex"),
        (("--model", "alexnet"), "params.yaml: there is no model 'alexnet'; models are "),
    ]:
        result = clone.run(*PREDICT, *arguments, str(tmp_path / "mine.png"))
        assert result.returncode == 1
        assert result.stderr.startswith(f"error: {message}")
        assert result.stderr.count("\n") == 1
