"""Charts do not depend on Matplotlib's settings on this machine."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.repository import ROOT

DRAW = """
import hashlib, io
from tests.reporting.results import model_result
from stages.reporting import charts

figure = charts.accuracies([model_result("cnn")], {"cnn": 0.5})
png = io.BytesIO()
figure.savefig(png)
svg = charts.svg(figure, "accuracies")
print(hashlib.sha256(png.getvalue() + svg.encode()).hexdigest())
"""
OTHER_LOOK = b"text.usetex: True\nfont.family: serif\nfont.size: 20\nsvg.fonttype: path\n"
NOT_TEXT = b"\xff\xfe"


def write(content: bytes, *files: str) -> Callable[[Path], None]:
    """A function that writes `content` to these files in a folder."""

    def write_files(folder: Path) -> None:
        for file in files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(content)

    return write_files


def draw(
    folder: Path, prepare: Callable[[Path], None], environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Draw a chart as PNG and SVG in `folder`, which is also the home folder."""
    prepare(folder)
    settings = {name: value.format(folder) for name, value in environment.items()}
    return subprocess.run(
        [sys.executable, "-c", DRAW],
        cwd=folder,
        env={**os.environ, "HOME": str(folder), "PYTHONPATH": str(ROOT), **settings},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The checksum of the chart on a machine without settings."""
    result = draw(tmp_path_factory.mktemp("plain"), lambda _: None, {})
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(
    ("prepare", "environment"),
    [
        (write(OTHER_LOOK, "matplotlibrc", ".config/matplotlib/matplotlibrc"), {}),
        (
            write(OTHER_LOOK, "rc", "xdg/matplotlib/matplotlibrc"),
            {"MATPLOTLIBRC": "{}/rc", "XDG_CONFIG_HOME": "{}/xdg", "SOURCE_DATE_EPOCH": "1"},
        ),
        (
            write(OTHER_LOOK, "settings/matplotlibrc"),
            {"MPLCONFIGDIR": "{}/settings", "MPLBACKEND": "svg", "LC_ALL": "C"},
        ),
        (
            write(NOT_TEXT, "matplotlibrc", "rc", ".config/matplotlib/stylelib/own.mplstyle"),
            {"MATPLOTLIBRC": "{}/rc", "MPLBACKEND": "no such backend"},
        ),
        (
            lambda folder: os.mkfifo(folder / "matplotlibrc"),
            {"MPLCONFIGDIR": "/dev/null/folder", "HOME": "/dev/null", "MPLBACKEND": "module://no"},
        ),
    ],
    ids=[
        "in working directory and home",
        "named by MATPLOTLIBRC and XDG_CONFIG_HOME",
        "named by MPLCONFIGDIR",
        "broken",
        "pipe, and folders that cannot be created",
    ],
)
def test_charts_ignore_settings(
    tmp_path: Path, expected: str, prepare: Callable[[Path], None], environment: dict[str, str]
) -> None:
    result = draw(tmp_path, prepare, environment)
    assert (result.returncode, result.stdout, result.stderr) == (0, expected, "")


def test_folder_that_cannot_be_created_ends_in_one_line(tmp_path: Path) -> None:
    result = draw(tmp_path, write(b"", ".dvc/tmp"), {})
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: Matplotlib cannot use {tmp_path}/.dvc/tmp/matplotlib:")
    assert len(result.stderr.splitlines()) == 1
