"""Users' image files: read as a person sees them, whatever else is in the file."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from stages.common.errors import StageError
from stages.sources import image_files

RED, GREEN, BLUE, WHITE = (200, 30, 30), (30, 200, 30), (30, 30, 200), (255, 255, 255)


def red_above_green(size: tuple[int, int] = (64, 64)) -> Image.Image:
    image = Image.new("RGB", size, RED)
    image.paste(GREEN, (0, size[1] // 2, *size))
    return image


def damaged_tiff(path: Path) -> None:
    """Write a TIFF file of which libtiff prints that it cannot be decoded."""
    file, noise = io.BytesIO(), np.random.default_rng(0).integers(0, 256, (99, 99, 3), np.uint8)
    Image.fromarray(noise).save(file, "TIFF", compression="tiff_lzw")
    content = file.getvalue()
    path.write_bytes(content[:9_000] + b"\xff" * 3_000 + content[12_000:])


Color = tuple[int, int, int]
RED_ABOVE_TRANSPARENT = Image.new("RGBA", (64, 64), (0, 0, 0, 0))  # its black must not show
RED_ABOVE_TRANSPARENT.paste((*RED, 255), (0, 0, 64, 32))
BETWEEN_BLUE_SIDES = Image.new("RGB", (192, 64), BLUE)
BETWEEN_BLUE_SIDES.paste(red_above_green(), (64, 0))
GRAY = Image.fromarray(np.array([[52_428], [13_107]], np.uint16).repeat(32, 0).repeat(64, 1))
SHOWN: dict[str, tuple[str, Image.Image, Color, Color]] = {
    "PNG": ("a.png", red_above_green(), RED, GREEN),
    "CMYK JPEG": ("a.jpg", red_above_green().convert("CMYK"), RED, GREEN),
    "palette": ("a.png", red_above_green().quantize(4), RED, GREEN),
    "transparent": ("a.png", RED_ABOVE_TRANSPARENT, RED, WHITE),
    "transparent palette": ("a.png", RED_ABOVE_TRANSPARENT.quantize(4), RED, WHITE),
    "16-bit gray": ("a.png", GRAY, (204,) * 3, (51,) * 3),
    "large": ("a.png", red_above_green((3000, 3000)), RED, GREEN),
    "wide": ("a.png", BETWEEN_BLUE_SIDES, RED, GREEN),  # its center square, not squeezed
}


def shows(pixels: np.ndarray, above: Color, below: Color) -> bool:
    """Whether an image's upper and lower half have these colors."""
    middle = len(pixels) // 2
    upper, lower = pixels[: middle - 1].astype(int), pixels[middle + 1 :].astype(int)
    return bool(max(np.abs(upper - above).max(), np.abs(lower - below).max()) <= 12)


@pytest.mark.parametrize(("name", "image", "above", "below"), SHOWN.values(), ids=SHOWN.keys())
def test_image_is_read_as_a_person_sees_it(
    tmp_path: Path, name: str, image: Image.Image, above: Color, below: Color
) -> None:
    image.save(tmp_path / name, quality=95)
    pixels = image_files.read(tmp_path / name, (32, 32))
    assert (pixels.shape, str(pixels.dtype)) == ((32, 32, 3), "uint8")
    assert shows(pixels, above, below)


def test_small_image_is_enlarged_smoothly(tmp_path: Path) -> None:
    ramp = np.arange(0, 256, 8, dtype=np.uint8)
    Image.fromarray(np.tile(ramp, (32, 1))).save(tmp_path / "a.png")
    for row in image_files.read(tmp_path / "a.png", (64, 64))[:, 2:-2, 0].astype(int):
        assert {*np.diff(row)} <= {3, 4, 5}  # 0 and 8 where pixels are only repeated


Image.init()  # loads all formats


@pytest.mark.parametrize("name", sorted({*image_files.FORMATS, "MPO"} & {*Image.SAVE}))
def test_format_is_recognized_without_its_suffix(tmp_path: Path, name: str) -> None:
    animated = name in ("MPO", "GIF", "WEBP")
    more = {"save_all": True, "append_images": [Image.new("RGB", (64, 64))]} if animated else {}
    red_above_green().save(tmp_path / "image", name, **more)
    assert shows(image_files.read(tmp_path / "image", (32, 32)), RED, GREEN)


def test_png_with_a_large_color_profile_is_read(tmp_path: Path) -> None:
    red_above_green().save(tmp_path / "a.png", icc_profile=bytes(10_000_000))
    assert shows(image_files.read(tmp_path / "a.png", (32, 32)), RED, GREEN)


def test_png_with_a_profile_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    file, compressor = io.BytesIO(), zlib.compressobj()
    red_above_green().save(file, "PNG")
    profile = b"".join(compressor.compress(bytes(2**20)) for _ in range(100)) + compressor.flush()
    chunk = b"iCCPname\0\0" + profile
    chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    header, rest = file.getvalue()[:33], file.getvalue()[33:]
    (tmp_path / "a.png").write_bytes(header + chunk + rest)
    with pytest.raises(StageError, match=r"a.png: not a readable image: .*too large.*; leave it"):
        image_files.read(tmp_path / "a.png", (32, 32))


def test_images_are_found_in_folders_that_are_nested_deeply(tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(1000):  # Python's limit for recursion
        folder /= "d"
        folder.mkdir()
    image = folder / "a.jpg"
    image.touch()
    found = image_files.find(tmp_path)
    image.unlink()
    os.removedirs(folder)  # pytest would do it by recursion
    assert found == [image]


def exif_orientation(value: int) -> Image.Exif:
    """EXIF data with the field that cameras write when they are turned."""
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


T = Image.Transpose
UPRIGHT_TO_STORED = {  # by EXIF orientation; 9 is not defined
    **{2: T.FLIP_LEFT_RIGHT, 3: T.ROTATE_180, 4: T.FLIP_TOP_BOTTOM, 5: T.TRANSPOSE},
    **{1: None, 6: T.ROTATE_90, 7: T.TRANSVERSE, 8: T.ROTATE_270, 9: None},
}


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
@pytest.mark.parametrize("value", UPRIGHT_TO_STORED)
def test_orientation_is_applied(tmp_path: Path, suffix: str, value: int) -> None:
    image = red_above_green((100, 60))
    image.paste(BLUE, (0, 0, 50, 60))
    if (transpose := UPRIGHT_TO_STORED[value]) is not None:
        image = image.transpose(transpose)
    image.save(tmp_path / f"a.{suffix}", exif=exif_orientation(value), quality=95)
    pixels = image_files.read(tmp_path / f"a.{suffix}", (32, 32)).astype(int)
    for (y, x), color in {(4, 4): BLUE, (4, 27): RED, (27, 27): GREEN}.items():
        assert np.abs(pixels[y, x] - color).max() <= 20


def exif_data(tag: int, kind: int, value: bytes) -> bytes:
    """EXIF data with a field of a type, beside that of an image on its side."""
    fields = sorted([struct.pack("<HHL", tag, kind, 1) + value, b"\x12\1\3\0\1\0\0\0\6\0\0\0"])
    return b"Exif\0\0II*\0\x08\0\0\0\2\0" + b"".join(fields) + bytes(4)


DAMAGED = {
    "cut off": exif_orientation(6).tobytes()[:-8],
    "text as width": exif_data(0x0100, 1, b"a\0\0\0"),
    "number as description": exif_data(0x010E, 11, bytes(4)),
    "pointer to nowhere": exif_data(0x8769, 6, b"\xff" * 4),
}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("exif", DAMAGED.values(), ids=DAMAGED)
def test_image_with_damaged_exif_data_is_read_as_it_is_stored(tmp_path: Path, exif: bytes) -> None:
    file = io.BytesIO()
    red_above_green().save(file, "JPEG", quality=95)
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    (tmp_path / "a.jpg").write_bytes(file.getvalue()[:2] + segment + file.getvalue()[2:])
    assert shows(image_files.read(tmp_path / "a.jpg", (32, 32)), RED, GREEN)


def test_large_jpeg_is_decoded_at_a_fraction_of_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, upright = [], image_files.upright

    def noted(image: Image.Image) -> Image.Image:
        sizes.append(image.size)
        return upright(image)

    monkeypatch.setattr(image_files, "upright", noted)
    for width in (2048, 2400):
        red_above_green((width, 1600)).save(tmp_path / "a.jpg", quality=95)
        assert shows(image_files.read(tmp_path / "a.jpg", (32, 32)), RED, GREEN)
    assert sizes == [(2048, 1600), (600, 400)]


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize("name", ["a.eps", "a.jpg"])
def test_eps_is_refused_without_starting_ghostscript(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # search again
    (tmp_path / name).write_bytes(EPS)
    with pytest.raises(StageError, match=f"{name}: .*Pillow does not know its format"):
        image_files.read(tmp_path / name, (32, 32))
    assert not (tmp_path / "started").exists()


UNREADABLE = {
    b"P6 64 64 255\n": "image file is truncated",
    b"P6 20000 20000 255\n": "Image size .* exceeds limit",
    b"no image": "Pillow does not know its format",
}


@pytest.mark.parametrize(("content", "reason"), UNREADABLE.items(), ids=map(repr, UNREADABLE))
def test_unreadable_image_is_reported_in_one_line(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(StageError, match=f"a.png: not a readable image: .*{reason}.*; leave it"):
        image_files.read(tmp_path / "a.png", (32, 32))
