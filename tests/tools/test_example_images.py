"""The example images: as varied as people's own, the same for one seed, and learnable."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import Base as Tag

from stages.common.errors import StageError
from stages.sources import image_files
from stages.tools import example_images

COUNTS = {"circle": 36, "square": 24, "triangle": 12}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("example") / "shapes"
    example_images.write(path, COUNTS, seed=0)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder by path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}


def test_equal_seeds_give_equal_bytes(folder: Path, tmp_path: Path) -> None:
    example_images.write(tmp_path / "equal", COUNTS, seed=0)
    assert contents(tmp_path / "equal") == contents(folder)
    example_images.write(tmp_path / "other", COUNTS, seed=1)
    assert contents(tmp_path / "other") != contents(folder)


def test_classes_differ_in_number_and_images_in_size_format_and_mode(folder: Path) -> None:
    assert {path.name: len([*path.iterdir()]) for path in folder.iterdir()} == COUNTS
    images = [Image.open(path) for path in folder.rglob("*.*")]
    assert len({image.size for image in images}) > 60
    assert {x.format for x in images} == {"JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"}
    assert {image.mode for image in images} >= {"RGB", "RGBA", "P"}
    assert {image.getexif().get(Tag.Orientation, 1) for image in images} == {1, 6}


def test_shape_fills_more_of_the_center_than_of_the_corners(folder: Path) -> None:
    for path in folder.rglob("*.*"):
        image = image_files.read(path, (64, 64)).mean(axis=2)
        corners = np.concatenate([image[:4, :4], image[:4, -4:]])
        assert image[28:36, 28:36].mean() < corners.mean() - 20, path


def test_existing_folder_is_refused_and_stays(folder: Path) -> None:
    before = contents(folder)
    with pytest.raises(StageError, match="shapes: exists already; name another folder"):
        example_images.write(folder, {"circle": 1}, seed=0)
    assert contents(folder) == before
