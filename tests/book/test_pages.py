"""Every built page, opened in a real browser without a network.

`make test` builds the book first. Each check is also run on a page made to fail it.
"""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

pytestmark = pytest.mark.book

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"
INDEX = HTML / "index.html"  # only sends the reader on to the front page
PAGES = sorted(p for p in HTML.rglob("*.html") if p != INDEX and "_static" not in p.parts)
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
APPS = ("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",)
OWN = "https://sparsity-meets-deep-networks.github.io/book/"
GITHUB = "https://github.com/sparsity-meets-deep-networks/book/blob/main/"
COLAB = "https://colab.research.google.com/github/sparsity-meets-deep-networks/book/blob/main/"

FACTS = """() => {
  const text = document.createElement('div');
  text.append(...[...document.body.cloneNode(true).childNodes]);
  text.querySelectorAll('script, style, pre, code, mjx-container').forEach(e => e.remove());
  return {
    text: text.textContent,
    math: document.querySelectorAll('.math').length,
    typeset: document.querySelectorAll('.math mjx-container').length,
    errors: [...document.querySelectorAll('mjx-merror, .MathJax_Error')].map(
      e => e.getAttribute('data-mjx-error') || e.title || e.textContent),
    images: [...document.images].map(
      e => ({src: e.currentSrc.slice(0, 100), width: e.naturalWidth, alt: e.alt.trim()})),
    links: [...document.querySelectorAll('a[href]')].map(e => e.href),
    ids: [...document.querySelectorAll('[id], a[name]')].map(e => e.id || e.name),
    sliders: document.querySelectorAll('input[type=range]').length,
  }
}"""
NARROW = """() => {
  const article = document.querySelector('article') || document.body;
  const small = [...article.querySelectorAll('p, li, td')].filter(
    e => e.textContent.trim() && parseFloat(getComputedStyle(e).fontSize) < 12);
  const cut = [...document.querySelectorAll('.math')].filter(
    e => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX === 'hidden');
  const left = [...document.querySelectorAll('.math > *')].filter(
    e => e.getBoundingClientRect().left < e.parentNode.getBoundingClientRect().left - 1);
  return {
    cut: [...cut, ...left].map(e => e.textContent.slice(0, 50)),
    page: document.documentElement.scrollWidth,
    text: article.clientWidth,
    small: small.map(e => e.textContent.slice(0, 50)),
  }
}"""
SHOWN = """slider => {
  const figure = slider.closest('.explore') || slider.closest('figure') || document.body;
  return [...figure.querySelectorAll('img')].filter(e => e.getClientRects().length).map(
    e => ({src: e.currentSrc, width: e.naturalWidth}));
}"""


@dataclass
class Visit:
    """What was found on one page."""

    path: Path
    requests: list[str]  # addresses asked for, other than files
    failed: list[str]  # files that are not there
    console: list[str]
    facts: dict
    narrow: dict
    sliders: list[tuple[list, list]]  # the pictures shown before and after a key was pressed


@pytest.fixture(scope="session")
def browser():
    found = next(filter(None, map(shutil.which, (*NAMES, *APPS))), None)
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no Chromium or Chrome was found")
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def visited(browser):
    """The visit of a page, each page opened once."""
    visits = {}

    def get(path: Path) -> Visit:
        if path not in visits:
            visits[path] = visit(browser, path)
        return visits[path]

    return get


def visit(browser: Browser, path: Path) -> Visit:
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    requests, failed, console = [], [], []
    page.on("request", lambda r: _is_local(r.url) or requests.append(r.url))
    page.on("requestfailed", lambda r: _is_local(r.url) and failed.append(r.url))
    page.on("console", lambda m: m.type == "error" and console.append(m.text))
    page.on("pageerror", lambda e: console.append(str(e)))
    page.goto(path.as_uri())
    page.evaluate("() => window.MathJax?.startup?.promise")
    facts = page.evaluate(FACTS)
    sliders = [_moved(page, i) for i in range(facts["sliders"])]
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(100)
    narrow = page.evaluate(NARROW)
    context.close()
    return Visit(path, requests, failed, console, facts, narrow, sliders)


def _is_local(url: str) -> bool:
    return url.startswith(("file:", "data:", "blob:", "about:"))


def _moved(page: Page, index: int) -> tuple[list, list]:
    slider = page.locator("input[type=range]").nth(index)
    before = slider.evaluate(SHOWN)
    at_end = slider.evaluate("e => Number(e.value) >= Number(e.max)")
    slider.focus()
    page.keyboard.press("ArrowLeft" if at_end else "ArrowRight")
    page.wait_for_timeout(200)
    return before, slider.evaluate(SHOWN)


def check_requests(visit: Visit, _) -> None:
    assert not visit.requests, "the page asks another server"
    assert not visit.failed, "the page asks for a file that is not there"


def check_console(visit: Visit, _) -> None:
    assert not visit.console


def check_formulas(visit: Visit, _) -> None:
    assert visit.facts["typeset"] >= visit.facts["math"]
    assert not visit.facts["errors"]
    raw = [
        mark for mark in ("$$", "\\begin{", "\\frac", "\\(", "\\[") if mark in visit.facts["text"]
    ]
    assert not raw, "a formula that was not typeset"


def check_images(visit: Visit, _) -> None:
    for image in visit.facts["images"]:
        assert image["width"] > 0, f"not loaded: {image}"
        # Sphinx writes the name of the file where there is no text.
        assert not re.search(r"^$|\.(png|svg|jpe?g|webp|gif)$", image["alt"]), (
            f"no alt text: {image}"
        )


def check_sliders(visit: Visit, _) -> None:
    for before, after in visit.sliders:
        assert before, "a slider without a picture"
        assert [i["src"] for i in after] != [i["src"] for i in before], "a dead slider"
        assert all(image["width"] > 0 for image in after)


def check_narrow(visit: Visit, _) -> None:
    assert visit.narrow["page"] <= 390, "the page scrolls sideways on a phone"
    assert visit.narrow["text"] >= 300
    assert not visit.narrow["small"], "text below 12 pixels"
    assert not visit.narrow["cut"], "a formula that cannot be scrolled into sight"


def check_links(visit: Visit, visited) -> None:
    for link in visit.facts["links"]:
        url, fragment = urldefrag(link)
        target = _target(url)
        if target is None:
            continue
        assert target.is_file(), f"{link} does not exist"
        if fragment and target.suffix == ".html":
            assert unquote(fragment) in visited(target).facts["ids"], f"no place {link}"


def _target(url: str) -> Path | None:
    """The file that a link of the book points at; None for another site."""
    if url.startswith("file:"):
        return Path(unquote(urlparse(url).path))
    if url.startswith(OWN):
        return HTML / (unquote(url[len(OWN) :]) or "index.html")
    for home in (GITHUB, COLAB):
        if url.startswith(home):
            return ROOT / unquote(url[len(home) :])
    return None


CHECKS = (
    *(check_requests, check_console, check_formulas, check_images),
    *(check_sliders, check_narrow, check_links),
)


def test_the_book_is_built(browser):
    if not PAGES and not os.environ.get("CI"):
        pytest.skip("the book is not built: make book")
    assert INDEX.is_file()
    front = re.search(r"url=(.*?)\"", INDEX.read_text("utf8"))[1]
    assert (HTML / front).is_file()
    chapters = {p.stem for p in (ROOT / "notebooks").glob("*.ipynb")}
    assert chapters == {p.stem for p in PAGES if p.parent.name == "notebooks"}


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.relative_to(HTML).as_posix())
@pytest.mark.parametrize("check", CHECKS, ids=lambda f: f.__name__)
def test_page(visited, path, check):
    check(visited(path), visited)


PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
LONG = "x" * 500
FAULTS = {
    "external image": (check_requests, '<img src="https://example.org/a.png" alt="a">'),
    "external style": (check_requests, '<link rel="stylesheet" href="https://example.org/a.css">'),
    "missing script": (check_requests, '<script src="nowhere.js"></script>'),
    "script error": (check_console, "<script>nothing()</script>"),
    "formula left": (check_formulas, '<span class="math">\\(x\\)</span>'),
    "raw dollars": (check_formulas, "<p>$$ x $$</p>"),
    "formula with an error": (check_formulas, '<mjx-merror title="no">x</mjx-merror>'),
    "image not loaded": (check_images, '<img src="nowhere.png" alt="a">'),
    "no alt text": (check_images, f'<img src="{PIXEL}">'),
    "empty alt text": (check_images, f'<img src="{PIXEL}" alt=" ">'),
    "name as alt text": (check_images, f'<img src="{PIXEL}" alt="_images/0a1b.png">'),
    "dead slider": (
        check_sliders,
        f'<div class="explore"><input type="range"><img src="{PIXEL}" alt="a"></div>',
    ),
    "too wide": (check_narrow, '<div style="width: 500px">wide</div>'),
    "long word": (check_narrow, f"<p>{LONG}</p>"),
    "tiny text": (check_narrow, '<p style="font-size: 8px">small</p>'),
    "formula cut off": (
        check_narrow,
        f'<div class="math" style="overflow: hidden; width: 350px">{LONG}</div>',
    ),
    "dead link": (check_links, '<a href="nowhere.html">a</a>'),
    "dead place": (check_links, '<a href="#nowhere">a</a>'),
    "dead badge": (check_links, f'<a href="{COLAB}notebooks/99_nowhere.ipynb">a</a>'),
}


def _plant(folder: Path, body: str) -> Path:
    page = folder / "page.html"
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    page.write_text(f"<!doctype html>{head}<title>t</title><body>{body}</body>", "utf8")
    return page


@pytest.mark.parametrize("fault", FAULTS)
def test_each_check_fails_where_it_should(browser, tmp_path, fault):
    check, body = FAULTS[fault]
    found = visit(browser, _plant(tmp_path, body))
    with pytest.raises(AssertionError):
        check(found, lambda path: found)


def test_every_check_passes_on_a_sound_page(browser, tmp_path):
    change = "this.nextSibling.src = this.nextSibling.src.replace('RAA7', 'RAA7#')"
    body = (
        '<p id="a">text <a href="#a">here</a></p><div class="explore">'
        f'<input type="range" oninput="{change}"><img src="{PIXEL}" alt="a dot"></div>'
    )
    found = visit(browser, _plant(tmp_path, body))
    for check in CHECKS:
        check(found, lambda path: found)
