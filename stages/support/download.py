"""Downloads by a library's own downloader: bounded waits, a bounded size, a few retries."""

import errno
import http.client
import resource
import signal
import socket
import time
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from stages.support.errors import StageError

Result = TypeVar("Result")

ANSWER_SECONDS = 30  # the longest silence of a server
WHOLE_SECONDS = 3600  # the longest wait for everything
PAUSES_SECONDS = (1, 2, 4)  # before each retry


@contextmanager
def bounded(largest: int) -> Iterator[None]:
    """Inside, no file may grow beyond `largest` bytes and the waiting ends: `OSError` if either."""

    def too_late(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"not done after {WHOLE_SECONDS} s")

    answer_seconds = socket.getdefaulttimeout()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGALRM, too_late)
    socket.setdefaulttimeout(ANSWER_SECONDS)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, hard))
    signal.setitimer(signal.ITIMER_REAL, WHOLE_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        socket.setdefaulttimeout(answer_seconds)
        signal.signal(signal.SIGALRM, handler)


def may_pass(cause: BaseException) -> bool:
    """Whether trying again can help: the server is busy or broken, or the line was cut."""
    if isinstance(cause, urllib.error.HTTPError):
        return cause.code in (408, 429) or cause.code >= 500
    connection = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)
    return isinstance(cause, connection)


def download(fetch: Callable[[], Result], url: str, largest: int, otherwise: str) -> Result:
    """Call `fetch`, which downloads `url` to a file of at most `largest` bytes, until it succeeds.

    Raises `StageError` with the URL, the cause and `otherwise`, what the user can do instead.
    """
    deadline = time.monotonic() + WHOLE_SECONDS
    with bounded(largest):
        for pause in (*PAUSES_SECONDS, None):
            try:
                return fetch()
            except Exception as error:
                # Keras wraps what urllib says into a bare Exception.
                cause = (type(error) is Exception and error.__context__) or error
                reason = repr(cause) if isinstance(cause, http.client.HTTPException) else str(cause)
                if isinstance(cause, OSError) and cause.errno == errno.EFBIG:
                    reason = f"the server sent more than {largest} bytes"
                elif isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
                    raise
                if pause is None or not may_pass(cause) or time.monotonic() > deadline:
                    break
                print(f"could not fetch {url}: {reason}; trying again in {pause} s", flush=True)
                time.sleep(pause)
    raise StageError(f"could not fetch {url}: {reason}; {otherwise}")
