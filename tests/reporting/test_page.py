"""The comparison's page in a browser: complete, readable and self-contained on any screen."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Request, sync_playwright

from stages.common import params
from tests.reporting.results import model_result, render_page
from tests.repository import MODELS, Repository

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed")
PHONE, DESKTOP = 360, 1280
MEASURE = """() => {
    const all = (selector) => [...document.querySelectorAll(selector)];
    const brightness = (color) => Math.max(...color.match(/[0-9]+/g).slice(0, 3));
    const style = getComputedStyle(document.body);
    return {
        images: document.images.length,
        charts: all("svg").map((chart) => chart.getBoundingClientRect().width),
        tables: all("table").length,
        contrast: brightness(style.backgroundColor) - brightness(style.color),
        faults: {
            "scrolls horizontally": document.documentElement.scrollWidth > innerWidth,
            "broken image": [...document.images].some((image) => !image.naturalWidth),
            "unnamed image": all("img:not([alt]), img[alt='']").length > 0,
            "unnamed chart": all("svg:not([role=img][aria-label])").length > 0,
            "table without head":
                all("table").some((table) => !table.querySelector("thead th[scope=col]")),
            "external content":
                all("[src]:not([src^='data:']), link:not([href^='data:'])").length > 0,
            "script": document.scripts.length > 0,
            "broken link":
                all("a").some((link) => !document.querySelector(link.getAttribute("href"))),
            "section missing in the contents":
                all("h2").some(({id}) => !document.querySelector(`nav a[href="#${id}"]`)),
            "hidden columns":
                all(".scroll").some((region) => region.scrollWidth > region.clientWidth
                    && !region.previousElementSibling.innerText.includes("sideways")),
            "repeated id":
                all("[id]").length > new Set(all("[id]").map((element) => element.id)).size,
        },
    };
}"""
# Has every fault that is looked for.
FAULTY = """
<div style="width: 900px; background: url(other.png)">wide, and requests a file</div>
<img src="data:," alt="broken"> <img src="other.png"> <svg viewBox="0 0 1 1"></svg>
<table><tr><td>1</td></tr></table> <a href="#nowhere">nowhere</a> <h2 id="same">section</h2>
<p id="same">Table</p> <div class="scroll"><div style="width: 900px">wide</div></div>
<script>console.error("error"); throw Error("error")</script>
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def measure(
    browser: Browser, path: Path, width: int, color_scheme: Literal["light", "dark"] = "light"
) -> tuple[dict[str, Any], set[str]]:
    """Open a page in a window of that width; returns what is measured, and the page's faults."""
    window = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=color_scheme)
    faults = set[str]()

    def check_request(request: Request) -> None:
        if request.url != path.as_uri() and not request.url.startswith("data:"):
            faults.add("request")

    window.on("request", check_request)
    window.on("console", lambda _: faults.add("console message"))
    window.on("pageerror", lambda _: faults.add("uncaught error"))
    window.goto(path.as_uri())
    measured: dict[str, Any] = window.evaluate(MEASURE)
    window.close()
    return measured, faults | {fault for fault, occurs in measured["faults"].items() if occurs}


@pytest.mark.parametrize(("width", "color_scheme"), [(PHONE, "dark"), (DESKTOP, "light")])
def test_page_is_complete_and_without_faults(
    trained: Repository, browser: Browser, width: int, color_scheme: Literal["light", "dark"]
) -> None:
    path = trained.path / "metrics/report.html"
    assert path.stat().st_size < 3_000_000
    measured, faults = measure(browser, path, width, color_scheme)
    assert faults == set()
    assert measured["images"] > len(MODELS)
    assert measured["tables"] == 6 + len(MODELS)
    assert len(measured["charts"]) == 3 + 2 * len(MODELS)
    assert 0.5 * PHONE < min(measured["charts"]) <= max(measured["charts"]) < width
    assert (measured["contrast"] if color_scheme == "light" else -measured["contrast"]) > 150


@pytest.mark.parametrize("count", [2, 100])
def test_page_of_any_number_of_classes_is_without_faults(
    browser: Browser, tmp_path: Path, count: int
) -> None:
    names = [f"{number} of the classes with a name that is long" for number in range(count)]
    results = [
        model_result(name, classes=names, counts=range(1, count + 1)) for name in ("cnn", "other")
    ]
    data = {key: ["a.jpg = b.jpg"] * 30 for key in ("duplicates", "contradictions", "skipped")}
    path = tmp_path / "page.html"
    path.write_text(render_page(tmp_path / "test", results, params.load(), 64, **data), "utf-8")
    for width in (PHONE, DESKTOP):
        assert measure(browser, path, width)[1] == set()


def test_every_fault_of_a_page_is_noticed(
    trained: Repository, browser: Browser, tmp_path: Path
) -> None:
    text = (trained.path / "metrics/report.html").read_text()
    (tmp_path / "page.html").write_text(text.replace("<main>", f"<main>{FAULTY}"))
    measured, faults = measure(browser, tmp_path / "page.html", PHONE)
    assert faults == {*measured["faults"], "request", "console message", "uncaught error"}
