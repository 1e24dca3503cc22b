"""The comparison's page in a browser: complete, readable and self-contained on any screen."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from playwright.sync_api import Browser, Request, sync_playwright

from stages.common import params
from stages.reporting import page
from tests.reporting.results import description, image_split, model_result
from tests.repository import MODELS, Repository

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed")
PHONE, DESKTOP = 360, 1280
MEASURE = """() => {
    const all = (selector) => [...document.querySelectorAll(selector)];
    const style = getComputedStyle(document.body);
    return {
        width: document.documentElement.clientWidth,
        images: document.images.length,
        charts: all("svg").map((chart) => chart.getBoundingClientRect().width),
        tables: all("table").length,
        color: style.color,
        background: style.backgroundColor,
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
EMPTY_IMAGE = "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' width='1' height='1'/>"
FAULTS = {
    "scrolls horizontally": '<div style="width: 900px">wide</div>',
    "broken image": '<img src="data:," alt="broken">',
    "unnamed image": f'<img src="{EMPTY_IMAGE}">',
    "unnamed chart": '<svg viewBox="0 0 1 1"></svg>',
    "table without head": "<table><tr><td>1</td></tr></table>",
    "external content": '<img src="other.png" alt="other">',
    "request": '<div style="background: url(other.png)">background</div>',
    "script": "<script></script>",
    "broken link": '<a href="#nowhere">nowhere</a>',
    "section missing in the contents": '<h2 id="new">new</h2>',
    "hidden columns": '<p>Table</p><div class="scroll"><div style="width: 900px">wide</div></div>',
    "repeated id": '<p id="same"></p><p id="same"></p>',
    "console message": "<script>console.error('error')</script>",
    "uncaught error": "<script>throw Error('error')</script>",
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def measure(
    browser: Browser, path: Path, width: int, color_scheme: Literal["light", "dark"] = "light"
) -> dict[str, Any]:
    """Open a page in a window of that width; returns sizes, colors and the page's faults."""
    window = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=color_scheme)
    faults = set()

    def check_request(request: Request) -> None:
        if request.url != path.as_uri() and not request.url.startswith("data:"):
            faults.add("request")

    window.on("request", check_request)
    window.on("console", lambda _: faults.add("console message"))
    window.on("pageerror", lambda _: faults.add("uncaught error"))
    window.goto(path.as_uri())
    measured: dict[str, Any] = window.evaluate(MEASURE)
    window.close()
    faults |= {fault for fault, occurs in measured["faults"].items() if occurs}
    return {**measured, "faults": faults}


def brightness(color: str) -> float:
    """The brightness of `rgb(r, g, b)`, from 0 to 255."""
    return float(np.mean([int(x) for x in color[4:-1].split(",")]))


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_page_is_complete_and_without_faults(
    trained: Repository, browser: Browser, width: int
) -> None:
    path = trained.path / "metrics/report.html"
    assert path.stat().st_size < 3_000_000
    measured = measure(browser, path, width)
    assert measured["faults"] == set()
    assert measured["width"] == width
    assert measured["images"] > len(MODELS)
    assert measured["tables"] == 6 + len(MODELS)
    assert len(measured["charts"]) == 3 + 2 * len(MODELS)
    assert 0.5 * PHONE < min(measured["charts"]) <= max(measured["charts"]) < width


@pytest.mark.parametrize("count", [2, 100])
def test_page_of_any_number_of_classes_is_without_faults(
    browser: Browser, tmp_path: Path, count: int
) -> None:
    names = [f"{number} of the classes with a name that is long" for number in range(count)]
    results = [
        model_result(name, classes=names, counts=range(1, count + 1)) for name in ("cnn", "other")
    ]
    test = image_split(tmp_path / "test", results[0], (64, 64))
    data = description(results[0], duplicates=1, skipped=["a.jpg: truncated"] * 30)
    path = tmp_path / "page.html"
    path.write_text(page.html(results, params.load(), data, test), encoding="utf-8")
    for width in (PHONE, DESKTOP):
        assert measure(browser, path, width)["faults"] == set()


def test_page_follows_the_light_or_dark_color_scheme(trained: Repository, browser: Browser) -> None:
    path = trained.path / "metrics/report.html"
    light = measure(browser, path, DESKTOP, "light")
    dark = measure(browser, path, DESKTOP, "dark")
    assert light["faults"] == dark["faults"] == set()
    assert brightness(light["background"]) - brightness(light["color"]) > 150
    assert brightness(dark["color"]) - brightness(dark["background"]) > 150


@pytest.mark.parametrize(("fault", "html"), FAULTS.items(), ids=FAULTS.keys())
def test_browser_notices(
    trained: Repository, browser: Browser, tmp_path: Path, fault: str, html: str
) -> None:
    text = (trained.path / "metrics/report.html").read_text()
    (tmp_path / "page.html").write_text(text.replace("<main>", f"<main>{html}"))
    assert fault in measure(browser, tmp_path / "page.html", PHONE)["faults"]
