"""Users' image files: found in folders, and read as a person sees them.

Pillow decodes them. This module decides which formats it may open, how much memory a large image
may take, and what damaged metadata, more than 8 bits and transparency mean.
"""

import functools
import itertools
import math
import struct
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePath

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ExifTags import Base as Tag

from stages.common.errors import StageError

# The formats that Pillow decodes by itself; those without a signature come last. Not EPS, for which
# it starts Ghostscript; WMF, which Windows draws; IPTC, inside which it opens every format again;
# nor BUFR, GRIB, HDF5 and MPEG, of which it knows only the signatures.
LEAN_FORMATS = ["JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM"]
OTHER_FORMATS = [
    *("WEBP", "AVIF", "JPEG2000", "ICO", "ICNS", "PSD", "QOI", "DDS", "DIB", "CUR", "PCX", "DCX"),
    *("SGI", "SUN", "BLP", "FITS", "FLI", "FTEX", "GBR", "MCIDAS", "MSP", "PIXAR", "XBM", "XPM"),
    *("XVTHUMB", "IM", "IMT", "PCD", "SPIDER", "TGA"),
]
FORMATS = LEAN_FORMATS + OTHER_FORMATS

# Pixels of an image, as many as phones take. Decoding one needs 4 to 6 bytes per pixel, so about
# 1 GB, but in the other formats up to 19 (JPEG 2000).
MAX_PIXELS, MAX_PIXELS_OTHER = 200_000_000, 64_000_000
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow warns above it and refuses twice as many

MAX_ASPECT_RATIO = 1000  # of a longer image, the center square would show next to nothing

# Images with a longer side, in pixels, are converted in strips. JPEG files among them are decoded
# at a fraction of their size, but at least at this multiple of the target's.
LARGE, DRAFT = 2048, 8
TILE = 1024  # pixels; the side of the tiles in which the range of values is determined

Box = tuple[int, int, int, int]  # left, top, right, bottom

UPRIGHT = {  # by EXIF orientation; from 5 on, width and height change places
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImage(StageError):
    """A file is not a readable image; `reason` says why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: not a readable image: {reason}; leave it out")
        self.reason = reason


@functools.cache
def suffixes() -> frozenset[str]:
    """The suffixes of image files, in lower case."""
    formats = {*FORMATS, "MPO"}  # which the JPEG reader opens
    return frozenset(end for end, name in Image.registered_extensions().items() if name in formats)


def is_image_name(name: str) -> bool:
    """Whether a file's name has an image's suffix and is not hidden."""
    return PurePath(name).suffix.lower() in suffixes() and not name.startswith(".")


def find(folder: Path) -> list[Path]:
    """The image files in a folder and its subfolders, in alphabetical order.

    Hidden files and folders, and files without an image's suffix, are skipped.
    """
    return [
        file
        for file in sorted(folder.rglob("*"))
        if is_image_name(file.name)
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]


def exif_orientation(exif: bytes) -> int | None:
    """The orientation that an EXIF block declares, or None.

    No other field is read: programs damage them, and Pillow's reader stops at the first one whose
    value lies outside the block.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order:
        with suppress(struct.error):  # the block is truncated
            (directory,) = struct.unpack_from(f"{order}L", tiff, 4)
            (count,) = struct.unpack_from(f"{order}H", tiff, directory)
            for number in range(count):
                field = directory + 2 + 12 * number
                tag, kind, _, value = struct.unpack_from(f"{order}HHLH", tiff, field)
                if (tag, kind) == (Tag.Orientation, 3):
                    return int(value)
    return None


def load(image: Image.Image) -> int:
    """Decode the pixels; returns how they must be turned, an EXIF orientation from 1 to 8."""
    if image.format == "TIFF":
        # Pillow turns these pixels itself, and fails at other metadata that is damaged.
        with suppress(Exception):
            image.getexif()
        tags = image.getexif()  # those that were read before an error
        for tag in set(tags) - {Tag.Orientation}:
            del tags[tag]
        image.info.pop("xmp", None)
        image.load()
        return 1
    image.load()  # before the metadata, which a PNG file may have at its end
    orientation: object = exif_orientation(image.info.get("exif", b""))
    if orientation is None:
        with suppress(Exception):  # damaged metadata declares nothing
            orientation = image.getexif().get(Tag.Orientation)  # in a text, or XMP
    return int(orientation) if orientation in UPRIGHT else 1


def tiles(image: Image.Image) -> Iterator[tuple[Box, np.ndarray]]:
    """The values of a gray image in tiles, (height, width): uint32 of 16 bits, float32 of 32.

    NaN and infinity become 0.
    """
    dtype = np.uint32 if image.mode.startswith("I;16") else np.float32
    for left, top in itertools.product(*(range(0, side, TILE) for side in image.size)):
        box = left, top, min(left + TILE, image.width), min(top + TILE, image.height)
        yield box, np.nan_to_num(np.asarray(image.crop(box), dtype), posinf=0, neginf=0)


def to_8_bit(image: Image.Image) -> Image.Image:
    """Convert a gray image with 16 or 32 bits, which Pillow would clip at 255, to mode L.

    White is 65535, or 1 for floats. If there are values below 0 or above white, as in
    measurements, the range is scaled from minimum to maximum.
    """
    black, white = 0.0, 1.0 if image.mode == "F" else 65535.0
    if image.mode in ("I", "F"):
        ranges = [(float(values.min()), float(values.max())) for _, values in tiles(image)]
        minimum, maximum = min(low for low, _ in ranges), max(high for _, high in ranges)
        if minimum < black or maximum > white:
            black, white = minimum, maximum
    gray = Image.new("L", image.size)
    for box, values in tiles(image):
        levels: np.ndarray
        if values.dtype == np.uint32:
            levels = (values + 128) // 257  # the same as below, but 20 times as fast
        else:
            levels = np.interp(values, (black, white), (0, 255)).round()
        gray.paste(Image.fromarray(levels.astype(np.uint8)), box)
    return gray


def to_rgb(image: Image.Image) -> Image.Image:
    """An image in 8-bit RGB, on white where it is transparent."""
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image if image.mode == "RGB" else image.convert("RGB")


def resize_large(
    image: Image.Image, extent: tuple[float, float], size: tuple[int, int]
) -> Image.Image:
    """The center of a large image in 8-bit RGB, resized to `size`, (width, height).

    `extent` is the part that has content, (width, height). The result is made row by row: the
    image converted as a whole would take several times its memory.
    """
    width, height = size
    scale = min(extent[0] / width, extent[1] / height)
    left, top = max(0, extent[0] - scale * width) / 2, max(0, extent[1] - scale * height) / 2
    resized = Image.new("RGB", size)
    for row in range(height):
        box = left, top + scale * row, left + scale * width, top + scale * (row + 1)
        x, y = math.floor(box[0]), math.floor(box[1])
        outer = x, y, min(math.ceil(box[2]), image.width), min(math.ceil(box[3]), image.height)
        strip = to_rgb(image.crop(outer))
        inner = box[0] - x, box[1] - y, min(box[2] - x, strip.width), min(box[3] - y, strip.height)
        resized.paste(strip.resize((width, 1), Image.Resampling.BOX, inner), (0, row))
    return resized


def decode(image: Image.Image, width: int, height: int) -> Image.Image:
    """The center of an opened image, upright, in 8-bit RGB, resized to `width` and `height`."""
    limit = MAX_PIXELS_OTHER if image.format in OTHER_FORMATS else MAX_PIXELS
    if image.width * image.height > limit:
        raise ValueError(f"it has more than {limit:,} pixels, the limit for {image.format}")
    if max(image.size) > MAX_ASPECT_RATIO * min(image.size):
        raise ValueError(
            f"it has {image.width} x {image.height} pixels, more than {MAX_ASPECT_RATIO:,} to 1"
        )
    draft = None
    if max(image.size) > LARGE:
        draft = image.draft(None, (DRAFT * max(width, height),) * 2)
    orientation = load(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = to_8_bit(image)
    if draft or max(image.size) > LARGE:
        extent = draft[1][2:] if draft else image.size
        rgb = resize_large(image, extent, (width, height) if orientation < 5 else (height, width))
    else:
        rgb = to_rgb(image)
    if orientation in UPRIGHT:
        rgb = rgb.transpose(UPRIGHT[orientation])
    return ImageOps.fit(rgb, (width, height), Image.Resampling.BOX)


def read(path: Path, size: tuple[int, int]) -> np.ndarray:
    """The center of an image file, resized to `size`, (height, width): (height, width, 3) uint8.

    The first frame in RGB, upright, on white where it is transparent. Raises `UnreadableImage`.
    """
    height, width = size
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is not a file")  # opening a pipe could block forever
        # Opened here: Pillow would map the file into memory, and the process would be killed if
        # another one truncated it.
        with (
            warnings.catch_warnings(action="ignore"),
            path.open("rb") as file,
            Image.open(file, formats=FORMATS) as image,
        ):
            return np.asarray(decode(image, width, height))
    except UnidentifiedImageError:
        reason = "Pillow does not know its format"
    except Image.DecompressionBombError:
        reason = f"it has more than {MAX_PIXELS:,} pixels"
    except Exception as error:  # depends on the format's reader
        reason = getattr(error, "strerror", None) or f"{error!s:.200}" or type(error).__name__
    raise UnreadableImage(path, reason)
