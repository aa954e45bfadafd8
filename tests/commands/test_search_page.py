"""The page of a search in a real browser: pictures load, a click plays from the second, nothing else is asked for."""

from fractions import Fraction
from pathlib import Path

import pytest

from tests.browser import Browser, chromium
from tests.video_files import write_video
from vidformers.commands.search_results import add_pictures, write_page
from vidformers.inference.search import Span


PICTURES = "Array.from(document.images, image => image.complete && image.naturalWidth)"
TOO_WIDE = "document.documentElement.scrollWidth > window.innerWidth"
PLAYER = "document.querySelector('dialog video')"
BACKGROUND = "getComputedStyle(document.body).backgroundColor"


@pytest.fixture
def page(tmp_path) -> Path:
    """Parts of two videos, the clock of the second of which begins at five seconds."""
    options = {"num_frames": 75, "codec": "libvpx", "height": 96, "width": 160}
    (tmp_path / "videos").mkdir()
    odd = write_video(tmp_path / "videos" / "a <b>\"odd\" & 'very long' #1? 100%, name.webm", **options)
    late = write_video(tmp_path / "late.webm", pts=list(range(125, 200)), time_base=Fraction(1, 25), **options)
    spans = [
        Span(str(odd), 0.81, 0.4, 2.4, (1, 2), tuple(range(10, 60, 5))),
        Span(str(late), 0.35, 5.4, 7.4, (1, 2), tuple(range(10, 60, 5))),
        Span(str(tmp_path / "absent.webm"), 0.2, 0.0, 1.0, (0,), (0, 5)),
    ]
    write_page(tmp_path / "page.html", add_pictures(spans), "“a <i>title</i>”", "Top 3 in library.lance")
    return tmp_path / "page.html"


@pytest.mark.browser
@pytest.mark.slow
def test_page_in_a_browser(page, tmp_path):
    if chromium() is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    with Browser(chromium(), tmp_path / "profile") as browser:
        backgrounds = set()
        for scheme in ("light", "dark"):
            browser.prefer(scheme)
            for width in (1400, 420):
                browser.resize(width)
                browser.open(page.as_uri())
                assert browser.evaluate(PICTURES) == [360] * 6
                assert not browser.evaluate(TOO_WIDE), f"wider than {width} pixels"
            backgrounds.add(browser.evaluate(BACKGROUND))
        assert len(backgrounds) == 2 and browser.evaluate("document.querySelector('h1 i')") is None

        for number, seconds in ((1, 35 / 25), (4, 5 + 35 / 25)):
            link = f"document.querySelectorAll('.frames a')[{number}]"
            assert browser.evaluate(f"{link}.href").endswith(f"#t={seconds:.3f}")
            browser.evaluate(f"{link}.click()")
            browser.wait_for(f"{PLAYER}.readyState >= 2 && !{PLAYER}.seeking")
            assert seconds - 0.05 < browser.evaluate(f"{PLAYER}.currentTime") < seconds + 1
            assert browser.evaluate(f"{PLAYER}.videoWidth") == 160
            browser.evaluate("document.querySelector('dialog button').click()")
            browser.wait_for(f"{PLAYER}.paused && !document.querySelector('dialog').open")

        own = {page.as_uri(), *(path.as_uri() for path in tmp_path.rglob("*.webm"))}
        assert {url.partition("#")[0] for url in browser.requests if not url.startswith("data:")} == own
        assert browser.problems == []
        browser.evaluate("document.images[0].src = 'http://127.0.0.1:9/picture.png'")
        browser.wait_for("document.images[0].complete")
        assert "Content Security Policy" in " ".join(browser.problems), "the page itself forbids what is elsewhere"
