"""The built documentation in a real browser: no error, no failed request, nothing from elsewhere, a working search."""

import functools
import os
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.browser import Browser, chromium
from vidformers.families import FAMILIES


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


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def is_current(page: Path) -> bool:
    """Whether a page of the site is newer than all that the site is made from."""
    sources = (path for folder in ("docs", "src", "conversion", "utils") for path in (ROOT / folder).rglob("*.*"))
    newest = max(path.stat().st_mtime for path in (*sources, *ROOT.glob("*.md")) if path.suffix != ".pyc")
    return page.exists() and page.stat().st_mtime > newest


@pytest.fixture
def site(tmp_path) -> Path:
    """The site that `make docs` built, or one that is built here in the same way."""
    if chromium() is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    missing = [name for name in BUILDERS if find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: `make docs` installs what builds the documentation")
    if is_current(ROOT / "build/docs/site/index.html"):
        return ROOT / "build/docs/site"
    done = subprocess.run(
        [sys.executable, ROOT / "utils/docs/build_docs.py", tmp_path / "docs"],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return tmp_path / "docs/site"


@pytest.fixture
def server(site):
    """The site's address on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietHandler, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.browser
@pytest.mark.slow
def test_site_in_a_browser(site, server, tmp_path):
    for start in (server, site.as_uri()):
        with Browser(chromium(), tmp_path / start.partition(":")[0]) as browser:
            visit(browser, start)
            assert browser.problems == []
            outside = {url for url in browser.requests if not url.startswith((start, "data:", "about:", "blob:"))}
            assert outside == set()


def visit(browser, start: str) -> None:
    """Open pages of every kind on wide and narrow windows, switch the colors, follow a result of the search."""
    browser.prefer("light")
    family = next(iter(FAMILIES))
    for width in (1400, 420):
        browser.resize(width)
        for page in ("index", "reference", f"model_doc/{family}", f"conversion/{family}"):
            browser.open(f"{start}/{page}.html")
            assert browser.evaluate("document.querySelector('article h1').textContent")
            assert not browser.evaluate(TOO_WIDE), f"{page} is wider than {width} pixels"

    assert browser.evaluate(SCHEME) == "default"
    browser.evaluate("document.querySelector('[data-md-component=palette] label:not([hidden])').click()")
    browser.wait_for(f"{SCHEME} == 'slate'")

    browser.resize(1400)
    browser.open(f"{start}/index.html")
    browser.evaluate(TYPE_TUBELET)
    assert browser.wait_for(FOUND) > 1
    browser.open(browser.evaluate("document.querySelector('.md-search-result__item a').href"))
    assert "tubelet" in browser.evaluate("document.querySelector('article').textContent")
