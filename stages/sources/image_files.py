"""Users' image files: found in folders, and read as a person sees them."""

import functools
import hashlib
import io
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from stages.common.console import counted, first_few, list_suffixes, printable
from stages.common.errors import StageError

# What Pillow decodes by itself. Not EPS, for example, for which it starts Ghostscript.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM", "ICO")
# JPEG files with a longer side, in pixels, are decoded at a fraction of their size, but at least at
# this multiple of the target's.
LARGE, DRAFT = 2048, 8
# What systems, NAS and archives put beside users' files: thumbnails, deleted files, settings.
SYSTEM_NAMES = {
    *("@eadir", "__macosx", "$recycle.bin", "#recycle", "@recycle"),
    *("system volume information", "lost+found", "thumbs.db", "desktop.ini"),
}
SUFFIX_LENGTH = 16  # a name may have a whole sentence after a point

PngImagePlugin.MAX_TEXT_CHUNK = 2**26  # bytes; color profiles may be larger than Pillow's 1 MB
warnings.filterwarnings("ignore", module=r"PIL\.")  # of large images, and of damaged metadata


class UnreadableImage(StageError):
    """A file is not a readable image; `reason` says why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: not a readable image: {reason}; leave it out")
        self.reason = reason


@functools.cache
def suffixes() -> frozenset[str]:
    """The suffixes of image files, in lower case; MPO is read as JPEG."""
    formats = {*FORMATS, "MPO"}
    return frozenset(end for end, name in Image.registered_extensions().items() if name in formats)


def has_image_suffix(name: str) -> bool:
    """Whether a file's name has an image's suffix."""
    return PurePath(name).suffix.lower() in suffixes()


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """The user's files and folders in a folder: neither hidden nor a system's."""
    with os.scandir(folder) as found:
        return [
            entry
            for entry in found
            if not entry.name.startswith(".") and entry.name.lower() not in SYSTEM_NAMES
        ]


def walk(*folders: Path) -> Iterator[Path]:
    """Yield the user's files in folders and their subfolders; links to folders are left out."""
    pending = [*folders]  # not `os.walk`, which recurses in Python 3.11: folders may be nested deep
    while pending:
        for entry in entries(pending.pop()):
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                pending.append(path)
            elif not (entry.is_symlink() and path.is_dir()):
                yield path


def find(folder: Path) -> list[Path]:
    """The image files in a folder and its subfolders, in alphabetical order."""
    return sorted(path for path in walk(folder) if has_image_suffix(path.name))


def count_left_out(*folders: Path) -> dict[str, int]:
    """The number of files without an image's suffix by their suffix, the most frequent first."""
    names = [path.name for path in walk(*folders) if not has_image_suffix(path.name)]
    found = sorted(printable(PurePath(name).suffix.lower())[:SUFFIX_LENGTH] for name in names)
    return dict(Counter(found).most_common())


def without_images(folders: Sequence[Path]) -> str:
    """What to say of folders in which no image was found, and a remedy."""
    others = count_left_out(*folders)
    problem, remedy = "no images", "add some, with a suffix such as .jpg"
    if count := sum(others.values()):
        problem += f", but {counted(count, 'file')} with other suffixes ({list_suffixes(others)})"
        remedy = "convert them to JPEG or PNG"
    return f"{first_few(folders)}: {problem}; {remedy}"


def to_rgb(image: Image.Image) -> Image.Image:
    """An image in 8-bit RGB, on white where it is transparent; 16-bit gray is scaled."""
    if image.mode.startswith("I"):  # Pillow itself would clip at 255
        levels = np.asarray(image, np.float32) / 257
        image = Image.fromarray(levels.round().clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("RGB")


def upright(image: Image.Image) -> Image.Image:
    """An image turned as its EXIF data say, or as it is if they are damaged."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow's EXIF reader raises many types
        return image


def decode(content: bytes, size: tuple[int, int]) -> np.ndarray:
    """The center of an encoded image, resized to `size`, (height, width): (height, width, 3) uint8.

    The first frame in RGB, upright, on white where it is transparent. Raises many types.
    """
    height, width = size
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        if max(image.size) > LARGE:
            image.draft(None, (DRAFT * max(size),) * 2)
        image.load()  # before the metadata, which a PNG file may have at its end
        fitted = ImageOps.fit(to_rgb(upright(image)), (width, height), Image.Resampling.BICUBIC)
        return np.asarray(fitted)


def read(path: Path, size: tuple[int, int], sha256: str | None = None) -> np.ndarray:
    """The center of an image file, resized to `size`, (height, width): (height, width, 3) uint8.

    Raises `UnreadableImage`, or `StageError` if the file's content has another SHA-256.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is not a file")  # opening a pipe could block forever
        content = path.read_bytes()
        if sha256 and hashlib.sha256(content).hexdigest() != sha256:
            raise StageError(f"{path}: has changed meanwhile; run `dvc repro` again")
        return decode(content, size)
    except UnidentifiedImageError:
        reason = "Pillow does not know its format"
    except Exception as error:  # depends on the format's reader
        reason = getattr(error, "strerror", None) or f"{error!s:.200}" or type(error).__name__
    raise UnreadableImage(path, reason)
