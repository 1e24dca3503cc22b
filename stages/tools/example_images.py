"""Draw example images, to try the pipeline on: `python -m stages.tools.example_images FOLDER`.

Circles, squares and triangles, one folder each, as people's own images are: of many sizes and
formats, some transparent or turned by the camera, and not equally many of each class.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from PIL.ExifTags import Base as Tag

from stages.common import command_line
from stages.common.atomic import atomic_write
from stages.common.console import printable
from stages.common.errors import StageError

COUNTS = {"circle": 240, "square": 120, "triangle": 60}  # images of each class
WIDTHS, HEIGHTS = (40, 300), (90, 200)  # pixels, smallest and largest
ON_ITS_SIDE = 6  # EXIF orientation: turned by 90 degrees clockwise, the image is upright
SUFFIXES = (".jpg", ".png", ".webp", ".gif", ".tif", ".bmp")  # what the files are in turn


def draw(shape: str, rng: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """Draw a shape of random color, size, place and rotation on a noisy background.

    Returns the image in RGB and the shape's mask in L, white inside.
    """
    width, height = (int(rng.integers(*side, endpoint=True)) for side in (WIDTHS, HEIGHTS))
    side = min(width, height)  # of the center square, which the pipeline crops
    radius = side * rng.uniform(0.25, 0.42)
    center = [length / 2 + side * rng.uniform(-0.06, 0.06) for length in (width, height)]
    mask = Image.new("L", (width, height))
    pen = ImageDraw.Draw(mask)
    if shape == "circle":
        pen.circle(center, radius, fill=255)
    else:
        corners = {"square": 4, "triangle": 3}[shape]
        pen.regular_polygon((*center, radius), corners, int(rng.integers(-15, 15)), fill=255)
    dark, light = rng.uniform((0, 150), (100, 255), (3, 2)).T  # (3,) red, green and blue
    colors = np.where(np.asarray(mask)[..., None] > 0, dark, light)
    colors += rng.normal(0, 12, colors.shape)
    return Image.fromarray(colors.clip(0, 255).astype(np.uint8)), mask


def write(folder: Path, counts: dict[str, int], seed: int) -> None:
    """Write so many images of each class to `folder`/CLASS; equal arguments give equal bytes.

    JPEG files are on their side, PNG files transparent outside the shape. Raises `StageError` if
    the folder exists.
    """
    if folder.exists():
        raise StageError(f"{folder}: exists already; name another folder, or remove it")
    rng = np.random.default_rng(seed)
    with atomic_write(folder) as partial:
        for shape, count in counts.items():
            (partial / shape).mkdir(parents=True)
            for number in range(count):
                suffix, exif = SUFFIXES[number % len(SUFFIXES)], Image.Exif()
                image, mask = draw(shape, rng)
                if suffix == ".jpg":
                    image = image.transpose(Image.Transpose.ROTATE_90)
                    exif[Tag.Orientation] = ON_ITS_SIDE
                elif suffix == ".png":
                    image.putalpha(mask)
                image.save(partial / shape / f"{shape}-{number:03}{suffix}", exif=exif)


def main(folder: Path) -> None:
    write(folder, COUNTS, seed=0)
    for shape, count in COUNTS.items():
        print(f"{printable(str(folder / shape))}: {count} images")


if __name__ == "__main__":
    command = command_line.parser("stages.tools.example_images", __doc__)
    command.add_argument("folder", metavar="FOLDER", type=Path, help="a new folder")
    command_line.run(main, command)
