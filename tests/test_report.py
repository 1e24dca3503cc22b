"""The comparison's page and its short form, the page as a browser shows it."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.support.archive import CLASSES
from tests.conftest import Repository
from tests.test_pipeline import MODELS

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium")
PHONE, DESKTOP = 360, 1280
# Shows the page in a frame of the width asked for, and then tells what became of it.
HARNESS = """<!doctype html><link rel="icon" href="data:,">
<iframe id="frame" src="PAGE" style="width: WIDTHpx; height: 800px; border: 0"></iframe>
<script>
window.onload = () => {
    const page = frame.contentDocument, all = (selector) => [...page.querySelectorAll(selector)];
    const style = frame.contentWindow.getComputedStyle(page.body);
    const found = {
        width: page.documentElement.clientWidth,
        scrolls_to: page.documentElement.scrollWidth,
        pictures: page.images.length,
        broken: [...page.images].filter((image) => !image.naturalWidth).length,
        charts: all("svg").map((chart) => chart.getBoundingClientRect().width),
        unnamed: all("img:not([alt]), img[alt=''], svg:not([role=img][aria-label])").length,
        tables: all("table").length,
        headless: all("table").filter((each) => !each.querySelector("thead th[scope=col]")).length,
        from_elsewhere: all("[src]:not([src^='data:']), link:not([href^='data:']), script").length,
        repeated_ids: all("[id]").length - new Set(all("[id]").map((part) => part.id)).size,
        ink: style.color,
        paper: style.backgroundColor,
    };
    document.body.textContent = JSON.stringify(found);
};
</script>"""


def show(page: Path, width: int, folder: Path, *flags: str) -> dict[str, Any]:
    """What a page of that width looks like in Chromium, which must have nothing to complain of."""
    assert CHROMIUM
    harness = folder / "harness.html"
    harness.write_text(HARNESS.replace("PAGE", page.as_uri()).replace("WIDTH", str(width)))
    result = subprocess.run(
        [
            *(
                CHROMIUM,
                "--headless",
                "--no-sandbox",
                "--hide-scrollbars",
                "--enable-logging=stderr",
            ),
            *("--allow-file-access-from-files", f"--user-data-dir={folder / 'profile'}"),
            *("--virtual-time-budget=10000", "--dump-dom", *flags, harness.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    complaints = [line for line in result.stderr.splitlines() if "CONSOLE" in line]
    assert not complaints
    body = result.stdout.split("<body>", 1)[1].split("</body>", 1)[0]
    found: dict[str, Any] = json.loads(body)
    return found


def brightness(colour: str) -> float:
    """Of `rgb(r, g, b)`, from 0 to 255."""
    return float(np.mean([int(x) for x in colour[4:-1].split(",")]))


def test_minutes_are_those_of_the_very_model(clone: Repository) -> None:
    page = clone.path / "metrics/report.html"
    assert "not known of" not in page.read_text()
    timing = clone.path / "metrics/timings/simple_cnn.json"
    content = json.loads(timing.read_text())
    assert content["training_seconds"] == pytest.approx(sum(content["epoch_seconds"]), abs=0.1)
    timing.write_text(json.dumps({**content, "model_sha256": "another's"}))
    (clone.path / "metrics/timings/fast94.json").unlink()
    assert clone.stages_run("repro") == ["compare"]
    assert "not known of simple_cnn, fast94." in page.read_text()


@needs_chromium
def test_the_page_shows_whole_on_a_phone_and_on_a_desktop(
    trained: Repository, tmp_path: Path
) -> None:
    page = trained.path / "metrics/report.html"
    assert page.stat().st_size < 3_000_000
    for width in (PHONE, DESKTOP):
        found = show(page, width, tmp_path)
        assert found["width"] == width
        assert found["scrolls_to"] <= width
        assert found["pictures"] > len(MODELS)
        assert len(found["charts"]) == 3 + 2 * len(MODELS)
        assert 0.5 * PHONE < min(found["charts"]) <= max(found["charts"]) < width
        assert found["tables"] == 6
        for fault in ("broken", "unnamed", "headless", "from_elsewhere", "repeated_ids"):
            assert found[fault] == 0, fault


@needs_chromium
def test_the_page_takes_the_readers_light_or_dark(trained: Repository, tmp_path: Path) -> None:
    page = trained.path / "metrics/report.html"
    light = show(page, DESKTOP, tmp_path)
    dark = show(page, DESKTOP, tmp_path, "--blink-settings=preferredColorScheme=0")
    assert brightness(light["paper"]) - brightness(light["ink"]) > 150
    assert brightness(dark["ink"]) - brightness(dark["paper"]) > 150


@needs_chromium
def test_the_browser_would_have_noticed(trained: Repository, tmp_path: Path) -> None:
    page = tmp_path / "worse.html"
    whole = (trained.path / "metrics/report.html").read_text()
    wide = whole.replace("<main>", '<main><div style="width: 900px">.</div><img src="data:,">')
    page.write_text(wide)
    found = show(page, PHONE, tmp_path)
    assert found["scrolls_to"] > PHONE
    assert found["broken"] == found["unnamed"] == 1
    page.write_text(whole.replace("<main>", "<main><script>console.error('no')</script>"))
    with pytest.raises(AssertionError):
        show(page, PHONE, tmp_path)


def test_report_and_numbers_say_what_the_models_did(trained: Repository) -> None:
    labels = np.load(trained.path / "data/test/y.npy").argmax(axis=1)
    folder = trained.path / "data/evaluations"
    predicted = {
        model: np.load(folder / model / "probabilities.npy").argmax(axis=1) for model in MODELS
    }
    comparison = json.loads((trained.path / "metrics/comparison.json").read_text())
    report = (trained.path / "metrics/report.md").read_text()
    page = (trained.path / "metrics/report.html").read_text()
    for model in MODELS:
        numbers = comparison["models"][model]
        right = predicted[model] == labels
        assert numbers["accuracy"] == pytest.approx(right.mean())
        assert numbers["interval"][0] < right.mean() < numbers["interval"][1]
        assert numbers["top2_accuracy"] >= numbers["accuracy"]
        for label, name in enumerate(CLASSES):
            expected = right[labels == label].mean()
            assert numbers["class_accuracies"][name] == pytest.approx(expected)
        for text in (report, page):
            assert f"{right.mean():.2%}" in text
    first, second = (predicted[model] == labels for model in MODELS[:2])
    assert comparison["pairs"][0] == {
        "first": MODELS[0],
        "second": MODELS[1],
        "only_first": (first & ~second).sum(),
        "only_second": (second & ~first).sum(),
        "p_value": comparison["pairs"][0]["p_value"],
    }
    assert "notebook" not in report  # its accuracies are of other pictures than the sample's
    nobody = np.all([guess != labels for guess in predicted.values()], axis=0).sum()
    assert f"<p>{nobody} of {len(labels)} test pictures" in page
    for text in (report, page):
        assert "The images are generated and nothing was pretrained" in text
    assert "imagenet" not in page  # the sample's "ImageNet" weights are random


def test_results_of_other_pictures_are_refused(clone: Repository) -> None:
    path = clone.path / "data/evaluations/simple_cnn/probabilities.npy"
    path.unlink()
    np.save(path, np.zeros((3, 10), np.float32))
    result = clone.run("dvc", "repro", "--force", "--single-item", "compare")
    assert result.returncode != 0
    assert "error: the results of simple_cnn cannot be read: data/evaluations" in result.stderr
    assert "Traceback" not in result.stderr
