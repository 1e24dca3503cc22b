"""Users' own images: read as a person sees them, classified with the evaluation's probabilities."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.common.errors import StageError
from stages.dataset.classes import CLASSES
from stages.tools import predict
from tests.repository import MODELS, Repository

PREDICT = [sys.executable, "-m", "stages.tools.predict"]
RED, GREEN, WHITE = (200, 30, 30), (30, 200, 30), (255, 255, 255)
LIGHT_GRAY, DARK_GRAY = (204, 204, 204), (51, 51, 51)


def red_above_green(mode: str = "RGB", size: tuple[int, int] = (64, 64)) -> Image.Image:
    image = Image.new("RGB", size, RED)
    image.paste(GREEN, (0, size[1] // 2, *size))
    return image.convert(mode)


def red_above_transparent() -> Image.Image:
    """The transparent pixels are black, which must not show."""
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    image.paste((*RED, 255), (0, 0, 64, 32))
    return image


def between_blue_sides() -> Image.Image:
    """An image three times as wide as high."""
    square = red_above_green()
    wide = Image.new("RGB", (3 * square.width, square.height), "blue")
    wide.paste(square, (square.width, 0))
    return wide


def gray(bits: int) -> Image.Image:
    """Light gray above dark gray: 0.8 and 0.2 of white."""
    levels = np.repeat([0.8, 0.2], 32)[:, None] * (2**bits - 1) * np.ones(64)
    return Image.fromarray(levels.astype(np.uint8 if bits == 8 else np.uint16))


def measurement(low: float, high: float, dtype: type) -> Image.Image:
    """0.8 above 0.2 of the range between two values, which both occur in the middle."""
    levels = np.repeat([0.8, 0.2], 32)[:, None] * np.ones(64)
    levels = np.insert(levels, 32, [[1], [0]], axis=0)
    return Image.fromarray((low + (high - low) * levels).astype(dtype))


def save_rotated(path: Path) -> None:
    """Save an image on its side, with the EXIF tag that cameras write then."""
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise to view
    red_above_green().rotate(90).save(path, exif=exif, quality=95)


def save_animation(path: Path) -> None:
    second_frame = Image.new("RGB", (64, 64))
    red_above_green().save(path, save_all=True, append_images=[second_frame])


Color = tuple[int, int, int]
FORMATS: dict[str, tuple[str, Callable[[Path], None], Color, Color]] = {
    "PNG": ("a.png", lambda path: red_above_green().save(path), RED, GREEN),
    "JPEG": ("a.jpg", lambda path: red_above_green().save(path, quality=95), RED, GREEN),
    "CMYK JPEG": (
        "a.jpg",
        lambda path: red_above_green("CMYK").save(path, quality=95),
        RED,
        GREEN,
    ),
    "rotated JPEG": ("a.jpg", save_rotated, RED, GREEN),
    "WebP": ("a.webp", lambda path: red_above_green().save(path, lossless=True), RED, GREEN),
    "animated GIF": ("a.gif", save_animation, RED, GREEN),
    "palette": ("a.png", lambda path: red_above_green().quantize(4).save(path), RED, GREEN),
    "transparent": ("a.png", lambda path: red_above_transparent().save(path), RED, WHITE),
    "transparent palette": (
        "a.png",
        lambda path: red_above_transparent().quantize(4).save(path),
        RED,
        WHITE,
    ),
    "8-bit gray": ("a.png", lambda path: gray(8).save(path), LIGHT_GRAY, DARK_GRAY),
    "16-bit gray": ("a.png", lambda path: gray(16).save(path), LIGHT_GRAY, DARK_GRAY),
    "floats from 0 to 1": (
        "a.tif",
        lambda path: measurement(0, 1, np.float32).save(path),
        LIGHT_GRAY,
        DARK_GRAY,
    ),
    "floats from -40 to 60": (
        "a.tif",
        lambda path: measurement(-40, 60, np.float32).save(path),
        LIGHT_GRAY,
        DARK_GRAY,
    ),
    "32-bit integers": (
        "a.tif",
        lambda path: measurement(0, 1e6, np.int32).save(path),
        LIGHT_GRAY,
        DARK_GRAY,
    ),
    "large": ("a.png", lambda path: red_above_green(size=(3000, 3000)).save(path), RED, GREEN),
    "tiny": ("a.png", lambda path: red_above_green(size=(2, 2)).save(path), RED, GREEN),
    # The center square is cut out, nothing is squeezed.
    "wide": ("a.png", lambda path: between_blue_sides().save(path), RED, GREEN),
}


@pytest.mark.parametrize(("name", "save", "above", "below"), FORMATS.values(), ids=FORMATS.keys())
def test_image_is_read_as_a_person_sees_it(
    tmp_path: Path, name: str, save: Callable[[Path], None], above: Color, below: Color
) -> None:
    save(tmp_path / name)
    pixels = predict.read(tmp_path / name)
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8
    for half, color in ((pixels[:15], above), (pixels[17:], below)):
        assert abs(half.astype(int) - color).max() <= 8


def test_unreadable_image_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    red_above_green().save(tmp_path / "complete.png")
    content = (tmp_path / "complete.png").read_bytes()
    (tmp_path / "truncated.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.png").write_text("not an image")
    for name, reason in [
        ("truncated.png", "not a readable image: "),
        ("text.png", "Pillow does not know its format"),
        ("missing.png", "No such file or directory"),
    ]:
        with pytest.raises(StageError, match=f"{name}.*{reason}"):
            predict.read(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(StageError, match=r"pipe.png.*it is not a file"):  # without waiting for it
        predict.read(tmp_path / "pipe.png")
    monkeypatch.setattr(predict, "MAX_PIXELS", 64 * 64 - 1)
    with pytest.raises(StageError, match="more than 4,095 pixels"):
        predict.read(tmp_path / "complete.png")


def test_images_of_a_folder_come_in_alphabetical_order(tmp_path: Path) -> None:
    for name in (
        "b.png",
        "a.JPG",
        "subfolder/c.webp",
        ".hidden.png",
        ".thumbnails/d.png",
        "film.mpg",
        "e.pdf",
        "notes.txt",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    files = predict.find([tmp_path / "notes.txt", tmp_path])
    assert [str(path.relative_to(tmp_path)) for path in files] == [
        "notes.txt",  # named by the user, so `read` reports it
        "a.JPG",
        "b.png",
        "subfolder/c.webp",
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(StageError, match="empty: there is no image in this folder"):
        predict.find([tmp_path / "empty"])


def test_control_characters_in_a_file_name_do_not_reach_the_terminal() -> None:
    name = Path(os.fsdecode(b"k\xe4se\x1b[2J.png"))  # Latin-1, and the code that clears the screen
    assert predict.as_text(name, {"simple_cnn": [("cat", 0.5)]}).startswith("k?se?[2J.png\n")


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
    red_above_green().save(tmp_path / "mine.png")
    (clone.path / "models/fast94.keras").unlink()
    result = clone.run(*PREDICT, str(tmp_path / "mine.png"))
    assert result.returncode == 0
    assert result.stderr == "not trained yet: run `dvc repro train@fast94`\n"
    lines = result.stdout.splitlines()
    assert lines[0] == str(tmp_path / "mine.png")
    assert [line.split()[0] for line in lines[1:]] == [m for m in MODELS if m != "fast94"]
    assert all(line.count(" %") == 3 for line in lines[1:])


def test_missing_models_are_reported_in_one_line(clone: Repository, tmp_path: Path) -> None:
    red_above_green().save(tmp_path / "mine.png")
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
