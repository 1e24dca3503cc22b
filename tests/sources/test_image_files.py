"""Users' image files: read as a person sees them, whatever else is in the file."""

import io
import itertools
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, PngImagePlugin

from stages.common.errors import StageError
from stages.sources import image_files
from tests.repository import ROOT

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


def orientation(value: int) -> Image.Exif:
    """EXIF data with the field that cameras write when they are turned."""
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def save_rotated(path: Path) -> None:
    """Save an image on its side, to be rotated by 90 degrees clockwise to view it."""
    red_above_green().rotate(90).save(path, exif=orientation(6), quality=95)


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
    pixels = image_files.read(tmp_path / name, (32, 32))
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8
    for half, color in ((pixels[:15], above), (pixels[17:], below)):
        assert abs(half.astype(int) - color).max() <= 8


def shows_red_above_green(path: Path) -> bool:
    top, bottom = image_files.read(path, (32, 32))[[4, 27], 16].astype(int)
    return bool(np.abs([top - RED, bottom - GREEN]).max() <= 8)


def test_target_may_be_wide_or_high(tmp_path: Path) -> None:
    """Of an image three times as wide as high, a wide target shows the blue sides."""
    between_blue_sides().save(tmp_path / "upright.png")
    between_blue_sides().rotate(90, expand=True).save(tmp_path / "side.png", exif=orientation(6))
    for name in ("upright.png", "side.png"):
        for size in ((8, 24), (24, 8)):
            pixels = image_files.read(tmp_path / name, size)
            assert pixels.shape == (*size, 3)
            assert tuple(pixels[0, size[1] // 2]) == RED
            assert (tuple(pixels[0, 0]) == RED) == (size == (24, 8))


UPRIGHT_TO_STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
    0: None,  # not defined, as are 9 and more
    9: None,
}


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
def test_orientation_is_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, large: bool
) -> None:
    if large:
        monkeypatch.setattr(image_files, "LARGE", 64)
    image = red_above_green(size=(100, 60))
    image.paste("blue", (0, 0, 50, 60))
    for value, transpose in UPRIGHT_TO_STORED.items():
        stored = image if transpose is None else image.transpose(transpose)
        path = tmp_path / f"{value}.{suffix}"
        stored.save(path, exif=orientation(value), quality=95)
        pixels = image_files.read(path, (32, 32)).astype(int)
        for (y, x), color in {(4, 4): (0, 0, 255), (4, 27): RED, (27, 27): GREEN}.items():
            assert np.abs(pixels[y, x] - color).max() <= 20, value


def test_orientation_may_be_in_other_places_than_the_exif_block(tmp_path: Path) -> None:
    stored = red_above_green().rotate(90)
    xmp = '<rdf:Description tiff:Orientation="6"/>'
    stored.save(tmp_path / "xmp.jpg", xmp=xmp.encode(), quality=95)
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", xmp)
    stored.save(tmp_path / "xmp.png", pnginfo=text)
    text = PngImagePlugin.PngInfo()  # as ImageMagick writes it
    exif = orientation(6).tobytes()
    text.add_text("Raw profile type exif", f"\nexif\n{len(exif):8}\n{exif.hex()}\n", zip=True)
    stored.save(tmp_path / "text.png", pnginfo=text)
    for name in ("xmp.jpg", "xmp.png", "text.png"):
        assert shows_red_above_green(tmp_path / name), name


Field = tuple[int, int, int, bytes]  # tag, type, count, and value or offset
TAGS = [
    *(0x0100, 0x010E, 0x010F, 0x0110, 0x0111, 0x0113, 0x011A, 0x011B, 0x0128),
    *(0x0131, 0x0132, 0x013B, 0x0201, 0x0213, 0x8298, 0x8769, 0x8825, 0x9286),
]
ODD_VALUES = [  # (count, value or offset): empty, zero, -1, too short, outside, endless
    *((0, b"\0\0\0\0"), (1, b"\0\0\0\0"), (1, b"\xff\xff\xff\xff"), (2, b"\xff\0\0\0")),
    *((3, b"\x08\0\0\0"), (5, b"\xff\xff\xff\xff"), (8, b"\x08\0\0\0")),
    *((2**32 - 1, b"\x08\0\0\0"), (1, b"\1\0\0\0")),
]


def odd_fields(tags: list[int]) -> Iterator[Field]:
    """Each tag with each of the 13 types and each odd value."""
    for tag, kind, (count, value) in itertools.product(tags, range(1, 14), ODD_VALUES):
        yield tag, kind, count, value


def tiff_directory(order: str, fields: list[Field]) -> bytes:
    """A TIFF header and a directory of fields, in the order of their tags."""
    entries = [struct.pack(f"{order}HHL4s", *field) for field in sorted(fields)]
    head = struct.pack(f"{order}2sHLH", b"II" if order == "<" else b"MM", 42, 8, len(entries))
    return head + b"".join(entries) + bytes(4) + 16 * b"\0\xff"


def turned(order: str, field: Field) -> bytes:
    """An EXIF block with a field and the orientation of an image on its side."""
    six: Field = 0x0112, 3, 1, struct.pack(f"{order}Hxx", 6)
    return b"Exif\0\0" + tiff_directory(order, [field, six])


@pytest.mark.parametrize(("order", "tags"), [("<", TAGS), (">", TAGS[1:4])])
def test_photo_with_an_odd_exif_field_is_read_and_turned(
    tmp_path: Path, order: str, tags: list[int]
) -> None:
    file = io.BytesIO()
    red_above_green(size=(16, 16)).rotate(90).save(file, "JPEG", quality=95)
    jpeg = file.getvalue()
    wrong = []
    for field in odd_fields(tags):
        exif = turned(order, field)
        segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
        (tmp_path / "a.jpg").write_bytes(jpeg[:2] + segment + jpeg[2:])
        if not shows_red_above_green(tmp_path / "a.jpg"):
            wrong.append(field)
    assert not wrong


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_odd_exif_fields_do_no_harm_in_other_formats(tmp_path: Path, suffix: str) -> None:
    image, path = red_above_green(size=(16, 16)).rotate(90), tmp_path / f"a.{suffix}"
    for field in odd_fields([0x0100, 0x010E, 0x8769]):
        image.save(path, exif=turned("<", field), lossless=True)
        assert shows_red_above_green(path), field


def test_tiff_with_an_odd_field_is_read_and_turned(tmp_path: Path) -> None:
    pixels = red_above_green(size=(16, 16)).rotate(90).tobytes()
    required: list[Field] = [
        (tag, 4, 1, struct.pack("<L", value))
        for tag, value in {
            **{0x0100: 16, 0x0101: 16, 0x0103: 1, 0x0106: 2, 0x0111: 1000, 0x0112: 6},
            **{0x0115: 3, 0x0116: 16, 0x0117: len(pixels)},
        }.items()
    ]
    bits: Field = 0x0102, 3, 1, struct.pack("<Hxx", 8)
    # XMP, and pointers to other directories
    for field in odd_fields([0x02BC, 0x8769, 0x8825, 0xA005, 0x014A]):
        directory = tiff_directory("<", [*required, bits, field])
        (tmp_path / "a.tif").write_bytes(directory.ljust(1000, b"\0") + pixels)
        assert shows_red_above_green(tmp_path / "a.tif"), field


def test_exif_block_may_be_damaged_anywhere(tmp_path: Path) -> None:
    """Such an image is read as it is stored, or turned if the orientation can be read."""
    image, path = red_above_green(size=(16, 16)).rotate(90), tmp_path / "a.jpg"
    exif = turned(">", (0x010F, 2, 1, b"A\0\0\0"))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95)
    jpeg = file.getvalue()
    damaged = [exif[:length] for length in range(6, len(exif))]
    damaged += [
        exif[:place] + bytes([value]) + exif[place + 1 :]
        for place in range(6, len(exif) - 32)
        for value in (0, 1, 255)
    ]
    stored = image.resize((32, 32), Image.Resampling.BOX)
    for block in damaged:
        segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
        path.write_bytes(jpeg[:2] + segment + jpeg[2:])
        left, right = image_files.read(path, (32, 32))[16, [4, 27]].astype(int)
        as_stored = np.abs([left - stored.getpixel((4, 16)), right - stored.getpixel((27, 16))])
        assert as_stored.max() <= 8 or shows_red_above_green(path)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"


def test_formats_that_need_another_program_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EPS would start Ghostscript, whatever the file is called, also inside of IPTC."""
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # search again
    iptc = [(3, 60, b"\1\0"), (3, 20, b"\1"), (3, 30, b"\1"), (8, 10, EPS)]
    for name, content in {
        "eps.jpg": EPS,
        "eps.eps": EPS,
        "dos.png": b"\xc5\xd0\xd3\xc6" + struct.pack("<LL20x", 32, len(EPS)) + EPS,
        "wmf.jpg": b"\xd7\xcd\xc6\x9a" + struct.pack("<HhhhhHLH", 0, 0, 0, 9, 9, 72, 0, 0) + EPS,
        "iptc.jpg": b"".join(
            struct.pack(">BBBH", 0x1C, *tag, len(data)) + data for *tag, data in iptc
        ),
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(StageError, match=f"{name}.*Pillow does not know its format"):
            image_files.read(tmp_path / name, (32, 32))
    assert not (tmp_path / "started").exists()


def test_every_format_of_pillow_is_either_read_or_refused_on_purpose() -> None:
    Image.init()
    refused = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}
    assert set(image_files.FORMATS) | refused == set(Image.OPEN)
    assert not set(image_files.FORMATS) & refused
    assert len(image_files.FORMATS) == len(set(image_files.FORMATS))


@pytest.mark.parametrize("name", sorted({*image_files.FORMATS, "MPO"} & set(Image.SAVE)))
def test_format_is_recognized_without_its_suffix(tmp_path: Path, name: str) -> None:
    file = io.BytesIO()
    mode = {"MSP": "1", "XBM": "1", "SPIDER": "F"}.get(name, "RGB")
    image = red_above_green(mode)
    image.save(
        file, name, **({"append_images": [image], "save_all": True} if name == "MPO" else {})
    )
    (tmp_path / "image").write_bytes(file.getvalue())
    pixels = image_files.read(tmp_path / "image", (32, 32)).astype(int)
    if mode == "RGB":
        assert np.abs(pixels[[4, 27], 16] - [RED, GREEN]).max() <= 12
    else:
        assert pixels[16:].mean() > pixels[:16].mean()  # green is lighter


def rectangles(mode: str, width: int, height: int) -> Image.Image:
    """Random rectangles of all colors, and levels of transparency where the mode has them."""
    rng = np.random.default_rng(0)
    if mode in ("I", "F", "I;16"):
        dtype = {"I": np.int32, "F": np.float32, "I;16": np.uint16}[mode]
        image = Image.fromarray(rng.integers(0, 60_000, (9, 7)).astype(dtype))
    else:
        colors = "RGBA" if mode in ("LA", "RGBA") else "RGB"
        pixels = rng.integers(0, 256, (9, 7, len(colors))).astype(np.uint8)
        image = Image.fromarray(pixels).convert(mode)
    return image.resize((width, height), Image.Resampling.NEAREST)


@pytest.mark.parametrize("size", [(503, 301), (301, 503), (1000, 7), (7, 1000)])
def test_large_image_gets_the_values_of_a_small_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    for mode, suffix, tolerance in [
        *((mode, "png", 2) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
        *((mode, "tif", 2) for mode in ("CMYK", "I", "F")),
        *((mode, "jpg", 12) for mode in ("L", "RGB", "CMYK")),  # decoded at a lower resolution
    ]:
        path = tmp_path / f"a.{suffix}"
        rectangles(mode, *size).save(path)
        for target in ((32, 32), (8, 24)):
            monkeypatch.undo()
            small = image_files.read(path, target).astype(int)
            monkeypatch.setattr(image_files, "LARGE", 100)
            monkeypatch.setattr(image_files, "TILE", 90)
            large = image_files.read(path, target).astype(int)
            assert np.abs(small - large).max() <= tolerance, (mode, target)


def test_large_image_takes_little_more_memory_than_its_pixels(tmp_path: Path) -> None:
    """Converted as a whole, RGBA would take 20 bytes per pixel and floats 27."""
    side = 3500
    gradient = Image.linear_gradient("L").resize((side, side))
    gradient.save(tmp_path / "l.jpg")
    gradient.convert("I;16").save(tmp_path / "i16.tif")
    gradient.convert("RGBA").save(tmp_path / "rgba.png", compress_level=1)
    gradient.convert("F").save(tmp_path / "f.tif")
    script = (
        "import re, sys; from pathlib import Path; from stages.sources import image_files\n"
        "for path in sys.argv[1:]:\n"
        "    image_files.read(Path(path), (32, 32))\n"
        "    print(re.search(r'VmHWM:\\s*([0-9]+)', Path('/proc/self/status').read_text())[1])\n"
    )
    bytes_per_pixel = {"l.jpg": 1, "i16.tif": 4, "rgba.png": 7, "f.tif": 8}
    command = [sys.executable, "-c", script, *(str(tmp_path / name) for name in bytes_per_pixel)]
    printed = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    peaks = [1024 * int(peak) for peak in printed.split()]
    for (name, pixel), peak in zip(bytes_per_pixel.items(), peaks, strict=True):
        assert peak < 60_000_000 + pixel * side**2, name


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file with this size in its header and these chunks."""
    header = struct.pack(">LLBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))
        for kind, data in [(b"IHDR", header), *chunks, (b"IEND", b"")]
    )


def test_unreadable_image_is_reported_in_one_line(tmp_path: Path) -> None:
    red_above_green().save(tmp_path / "complete.png")
    complete = (tmp_path / "complete.png").read_bytes()
    bomb = zlib.compress(bytes(50_000_000))
    webp = b"VP8L" + struct.pack("<LBL13x", 10, 0x2F, 8000 | 7999 << 14)  # 8001 x 8000
    icon = struct.pack("<HHHBBBBHHLL", 0, 1, 1, 16, 16, 0, 0, 1, 32, 999, 22)
    for name, content, reason in [
        ("truncated.png", complete[: len(complete) // 2], "not a readable image: "),
        ("text.png", b"not an image", "Pillow does not know its format"),
        ("empty.png", b"", "Pillow does not know its format"),
        ("large.png", png(20_000, 10_001), "it has more than 200,000,000 pixels"),
        ("larger.png", png(10**5, 10**5), "it has more than 200,000,000 pixels"),
        ("inside.ico", icon + png(20_000, 10_001), "it has more than 200,000,000 pixels"),
        ("a.webp", b"RIFF\x1e\0\0\0WEBP" + webp, "more than 64,000,000 pixels, the limit for WEBP"),
        ("text bomb.png", png(1, 1, (b"zTXt", b"a\0\0" + bomb)), "Decompressed data too large"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(StageError, match=f"{name}: .*{reason}.*; leave it out"):
            image_files.read(tmp_path / name, (32, 32))
    with pytest.raises(StageError, match=r"missing.png.*No such file or directory"):
        image_files.read(tmp_path / "missing.png", (32, 32))
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(StageError, match=r"pipe.png.*it is not a file"):  # without waiting for it
        image_files.read(tmp_path / "pipe.png", (32, 32))


def test_of_a_long_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    file = io.BytesIO()
    red_above_green().save(file, "GIF")
    gif = file.getvalue()
    start = 13 + 3 * 2 ** ((gif[10] & 7) + 1)  # after the palette
    (tmp_path / "a.gif").write_bytes(gif[:start] + 100_000 * gif[start:-1] + b";")
    assert shows_red_above_green(tmp_path / "a.gif")


def test_images_of_a_folder_come_in_alphabetical_order(tmp_path: Path) -> None:
    for name in (
        *("b.png", "a.JPG", "subfolder/c.webp", "d.mpo", ".hidden.png", ".thumbnails/d.png"),
        *("film.mpg", "e.pdf", "f.eps", "notes.txt"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    files = [str(path.relative_to(tmp_path)) for path in image_files.find(tmp_path)]
    assert files == ["a.JPG", "b.png", "d.mpo", "subfolder/c.webp"]
