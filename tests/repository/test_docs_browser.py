"""The built documentation in a real browser: no error, nothing from elsewhere, a working search, pictures in place."""

import functools
import os
import shutil
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.browser import Browser, chromium
from vidformers.families import FAMILIES


pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.xdist_group("browser")]
ROOT = Path(__file__).parents[2]
BUILDERS = ("material", "mkdocstrings", "doc_builder")
TYPE_TUBELET = """
(() => {
  document.querySelector("label.md-header__button[for=__search]").click();
  const input = document.querySelector(".md-search__input");
  input.focus();
  input.value = "tubelet";
  input.dispatchEvent(new KeyboardEvent("keyup", { bubbles: true }));
})()
"""
FOUND = "document.querySelectorAll('.md-search-result__item a').length"
SCHEME = "document.body.getAttribute('data-md-color-scheme')"
TOO_WIDE = "document.documentElement.scrollWidth > window.innerWidth"
# What is wrong with a picture: it does not load, nobody is told what it shows, or it leaves the column of the text.
BAD_PICTURES = """
Array.from(document.querySelectorAll("article img")).filter(image => {
  const [place, column] = [image, image.closest("article")].map(each => each.getBoundingClientRect());
  const inside = place.left >= column.left - 1 && place.right <= column.right + 1;
  return !image.complete || !image.naturalWidth || !image.alt || !inside || place.width < 100;
}).map(image => image.src)
"""
NUM_PICTURES = "document.querySelectorAll('article img').length"
# Blocks of code that leave the window, or cannot be read to the end of a line, or whose button covers text.
BAD_CODE = """
Array.from(document.querySelectorAll("article pre > code")).filter(code => {
  const readable = code.scrollWidth <= code.clientWidth + 1 || getComputedStyle(code).overflowX === "auto";
  code.scrollLeft = code.scrollWidth;
  const text = document.createRange();
  text.selectNodeContents(code);
  const button = code.parentElement.querySelector(".md-code__button[data-md-type=copy]");
  const [right, left] = [text.getBoundingClientRect().right, button && button.getBoundingClientRect().left];
  code.scrollLeft = 0;
  return code.getBoundingClientRect().right > window.innerWidth + 1 || !readable || (button && right > left + 1);
}).map(code => code.textContent)
"""
NAMES_AT_THE_TOP = """
Array.from(document.querySelectorAll(".md-header__topic, .md-nav--primary > .md-nav__title")).filter(
  place => place.checkVisibility({ opacityProperty: true, visibilityProperty: true })
    && place.getBoundingClientRect().right > 0  // the menu of a narrow window waits beside it
    && place.textContent.trim() === "vidformers"
).length
"""


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def is_current(page: Path) -> bool:
    """Whether a page of the site is newer than all that the site is made from."""
    sources = (path for folder in ("docs", "src", "conversion", "utils") for path in (ROOT / folder).rglob("*.*"))
    newest = max(path.stat().st_mtime for path in (*sources, *ROOT.glob("*.md")) if path.suffix != ".pyc")
    return page.exists() and page.stat().st_mtime > newest


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site that `make docs` built, or one that is built here in the same way."""
    if chromium() is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    missing = [name for name in BUILDERS if find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: `make docs` installs what builds the documentation")
    if is_current(ROOT / "build/docs/site/index.html"):
        return ROOT / "build/docs/site"
    out = tmp_path_factory.mktemp("docs")
    done = subprocess.run(
        [sys.executable, ROOT / "utils/docs/build_docs.py", out],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out / "site"


@pytest.fixture(scope="module")
def server(site):
    """The site's address on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietHandler, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def outside(browser, start: str) -> set[str]:
    """Addresses that were asked for and that are not of the site."""
    return {url for url in browser.requests if not url.startswith((start, "data:", "about:", "blob:"))}


def test_site_in_a_browser(site, server, tmp_path):
    for start in (server, site.as_uri()):
        with Browser(chromium(), tmp_path / start.partition(":")[0]) as browser:
            browser.prefer("light")
            if start == server:  # files are all opened below
                open_pages(browser, start)
            browser.resize(1400)
            browser.open(f"{start}/index.html")
            switch_colors(browser)
            search(browser)
            assert browser.problems == []
            assert outside(browser, start) == set()


def open_pages(browser, start: str) -> None:
    """Open pages of every kind on wide and narrow windows."""
    family = next(iter(FAMILIES))
    for width in (1400, 420):
        browser.resize(width)
        for page in ("index", "reference", f"model_doc/{family}", f"conversion/{family}"):
            browser.open(f"{start}/{page}.html")
            assert browser.evaluate("document.querySelector('article h1').textContent")
            assert not browser.evaluate(TOO_WIDE), f"{page} is wider than {width} pixels"


def switch_colors(browser) -> None:
    assert browser.evaluate(SCHEME) == "default"
    browser.evaluate("document.querySelector('[data-md-component=palette] label:not([hidden])').click()")
    browser.wait_for(f"{SCHEME} == 'slate'")


def search(browser) -> None:
    """Search from the open page, and follow the first result."""
    browser.evaluate(TYPE_TUBELET)
    assert browser.wait_for(FOUND) > 1
    browser.open(browser.evaluate("document.querySelector('.md-search-result__item a').href"))
    assert "tubelet" in browser.evaluate("document.querySelector('article').textContent")


@pytest.fixture(scope="module")
def site_without_search(site, tmp_path_factory) -> Path:
    """The site with nothing to search, which is most of what a page loads."""
    copy = shutil.copytree(site, tmp_path_factory.mktemp("quiet") / "site")
    (copy / "search/search_index.js").write_text('var __index = {"config": {"lang": ["en"]}, "docs": []}')
    return copy


@pytest.mark.parametrize(("width", "preferred", "scheme"), [(1200, "light", "default"), (400, "dark", "slate")])
def test_pictures_and_code_are_in_place(site_without_search, tmp_path, width, preferred, scheme):
    """On every page. A wide window also shows the name of the product once."""
    site, num_pictures = site_without_search, {}
    pages = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html") if path.name != "404.html")
    with Browser(chromium(), tmp_path / "profile") as browser:
        browser.resize(width)
        browser.prefer(preferred)
        for page in pages:
            browser.open(f"{site.as_uri()}/{page}")
            num_pictures[page] = browser.evaluate(NUM_PICTURES)
            assert browser.evaluate(SCHEME) == scheme
            assert browser.evaluate(BAD_PICTURES) == [], page
            assert browser.evaluate(BAD_CODE) == [], page
            assert not browser.evaluate(TOO_WIDE), f"{page} is wider than {width} pixels"
            assert width < 1200 or browser.evaluate(NAMES_AT_THE_TOP) == 1, page
        assert browser.problems == []
        assert outside(browser, site.as_uri()) == set()
    shown = {"index.html", *(f"model_doc/{family}.html" for family in FAMILIES)}
    assert all(num_pictures[page] for page in shown), num_pictures
