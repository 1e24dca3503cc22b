"""Files that users name: read only if they are regular files, and never lost."""

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.common import paths
from stages.common.errors import StageError
from stages.common.hashing import sha256
from stages.sources import local_files

VARIABLE = "CIFAR10_ARCHIVE"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder without DVC."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path


def bind_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def make_sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


UNREADABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "No such file or directory"),
    "folder": (Path.mkdir, "not a regular file"),
    "named pipe": (os.mkfifo, "not a regular file"),
    "socket": (bind_socket, "not a regular file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    "broken link": (lambda path: path.symlink_to("nowhere"), "No such file or directory"),
    "link to itself": (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    "below a file": (lambda path: None, "Not a directory"),
    "name too long": (lambda path: None, "File name too long"),
    "failing disk": (lambda path: path.symlink_to("/proc/self/mem"), "Input/output error"),
    "too large": (make_sparse, "of at most 1000 bytes"),
    "endless": (lambda path: path.symlink_to("/proc/self/maps"), "of at most 1000 bytes"),
}


@pytest.mark.parametrize(("make", "reason"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_is_no_readable_file_is_refused_at_once(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    make: Callable[[Path], object],
    reason: str,
) -> None:
    monkeypatch.setattr(local_files, "MAX_BYTES", 1000)
    source = folder / "source"
    make(source)
    case = request.node.callspec.id
    if case == "below a file":
        source = Path(__file__) / "archive"
    elif case == "name too long":
        source = folder / ("x" * 300)
    with pytest.raises(StageError) as caught:
        local_files.copy(VARIABLE, source, folder / "copy")
    assert f"error: {VARIABLE}={source}: " in str(caught.value)
    assert reason in str(caught.value)


def test_pipe_that_takes_the_place_of_a_file_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    regular = Path(__file__).stat()
    monkeypatch.setattr(Path, "stat", lambda self, **_: regular)  # as it was a moment before
    assert stat.S_ISREG(pipe.stat().st_mode)
    with pytest.raises(StageError, match="not a regular file"):
        local_files.copy(VARIABLE, pipe, folder / "copy")


def test_relative_name_is_relative_to_the_users_repository(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value, expected in {"": None, "a/b": Path("a/b"), "/a/b": Path("/a/b")}.items():
        monkeypatch.setenv(VARIABLE, value)
        assert local_files.named_in(VARIABLE) == expected
    monkeypatch.setenv("DVC_ROOT", "/repository")
    monkeypatch.setenv(VARIABLE, "a/b")
    assert local_files.named_in(VARIABLE) == Path("/repository/a/b")
    assert local_files.downloads() == Path("/repository/data/downloads")
    monkeypatch.delenv(VARIABLE)
    assert local_files.named_in(VARIABLE) is None


def test_file_where_dvc_would_delete_it_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in local_files.EMPTIED_BY_DVC:
        place.mkdir(parents=True, exist_ok=True)
        link = folder / f"link to {place.name}"
        link.symlink_to(place.absolute())
        for path in (place / "archive", place.absolute() / "a/b", link / "archive"):
            monkeypatch.setenv(VARIABLE, str(path))
            with pytest.raises(StageError, match=f"DVC empties {place}; move the file elsewhere"):
                local_files.named_in(VARIABLE)
        monkeypatch.setenv(VARIABLE, f"{place}.tar.gz")
        assert local_files.named_in(VARIABLE) == Path(f"{place}.tar.gz")


def test_replaced_file_is_kept_unless_its_content_is(folder: Path) -> None:
    path, replacement = folder / "archive", folder / "replacement"
    replacement.write_text("new")
    local_files.keep(path, replacement)  # there is none
    path.write_text("new")
    local_files.keep(path, replacement)
    assert not paths.DOWNLOADS.exists()
    path.write_text("old")
    local_files.keep(path, replacement)
    local_files.keep(path, replacement)
    kept = {file.name: file.read_text() for file in paths.DOWNLOADS.iterdir()}
    assert kept == {f"{sha256(path)[:8]}-archive": "old"}
    assert path.read_text() == "old"


def test_folder_in_place_of_an_output_is_not_replaced(folder: Path) -> None:
    (folder / "archive").mkdir()
    with pytest.raises(StageError, match="archive: not a regular file; move it elsewhere"):
        local_files.keep(folder / "archive", Path(__file__))
