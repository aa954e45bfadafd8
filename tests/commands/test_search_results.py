"""The sheet and the page of a search: right frames, right links, nothing that a file's name can do to a page."""

import base64
import hashlib
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.video_files import decode_all, write_video
from vidformers.commands.search_results import (
    GAP,
    HEAD,
    LABEL,
    MARGIN,
    ROW,
    SIDES,
    add_pictures,
    clock,
    write_page,
    write_sheet,
)
from vidformers.inference.search import Span


ROOT = Path(__file__).parents[2]
ODD = "a <b>\"odd\" & 'very' #1? 100%.mp4"


def span(video: Path | str, first: int = 5, last: int = 30, score: float = 0.5) -> Span:
    return Span(str(video), score, first / 25, (last + 1) / 25, (0,), tuple(range(first, last + 1, 5)))


@pytest.fixture
def video(tmp_path) -> Path:
    (tmp_path / "videos").mkdir()
    return write_video(tmp_path / "videos" / "one.mp4", num_frames=40)


class Reader(HTMLParser):
    """The tags of a page with their attributes, and its texts."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)

    def values(self, tag: str, name: str) -> list[str]:
        return [attributes[name] for found, attributes in self.tags if found == tag and name in attributes]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00.0"), (59.96, "1:00.0"), (61.24, "1:01.2"), (3599.99, "1:00:00.0"), (3723.5, "1:02:03.5")],
)
def test_clock(seconds, text):
    assert clock(seconds) == text and clock(float("nan")) == "?"


def test_pictures_are_first_middle_and_last_frame(video):
    frames = decode_all(video)
    (result,) = add_pictures([span(video)])
    assert list(result.pictures) == pytest.approx([5 / 25, 20 / 25, 30 / 25])
    for index, picture in zip((5, 20, 30), result.pictures.values()):
        assert picture.size == (324, 216), "96 by 64, enlarged"
        expected = Image.fromarray(frames[index]).resize(picture.size, Image.Resampling.BICUBIC)
        assert np.abs(np.asarray(picture, dtype=int) - np.asarray(expected, dtype=int)).mean() < 1


def test_results_keep_the_order_of_spans_and_a_span_of_one_frame_has_one_picture(video):
    spans = [span(video, 20, 35), span(video, 3, 3), span(video, 0, 15)]
    results = add_pictures(spans)
    assert [result.span for result in results] == spans
    assert [len(result.pictures) for result in results] == [3, 1, 3]


def test_files_that_went_away_or_changed(video, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    spans = [span(tmp_path / "absent.mp4"), span(video, 20, 60), span(broken), span("http://127.0.0.1/x.mp4")]
    failures = {}
    results = add_pictures([*spans, span(write_video(tmp_path / "two.mp4"))], failures.__setitem__)
    assert [bool(result.pictures) for result in results] == [False] * 4 + [True]
    assert "no such file any more" in failures[spans[0].video] and "no such file" in failures[spans[3].video]
    assert "fewer frames than when it was embedded" in failures[str(video)]
    assert "Cannot decode" in failures[str(broken)]
    write_page(tmp_path / "page.html", results, "title", "about")
    write_sheet(tmp_path / "sheet.png", results, "title", "about")
    page = Reader((tmp_path / "page.html").read_text())
    assert page.texts.count("This file cannot be read.") == 4 and len(page.values("img", "src")) == 3


def test_sheet(video, tmp_path):
    results = add_pictures([span(video), span(video, 20, 20)])
    write_sheet(tmp_path / "sheet.png", results, "“a title”" * 60, "about")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png")).astype(int)
    width, _ = SIDES
    for row, result in enumerate(results):
        for place, picture in enumerate(result.pictures.values()):
            left = MARGIN + LABEL + place * (width + GAP) + (width - picture.width) // 2
            top = HEAD + row * ROW
            np.testing.assert_array_equal(
                sheet[top : top + picture.height, left : left + picture.width], np.asarray(picture)
            )
    assert (sheet[:, -MARGIN:] == 255).all(), "a long title is shortened"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sheet.png", "videos"]


def test_page_is_whole_and_links_lead_to_the_second(video, tmp_path):
    odd = video.rename(video.with_name(ODD))
    elsewhere = write_video(tmp_path.parent / f"{tmp_path.name}.mp4")
    results = add_pictures([span(odd), span(elsewhere, 10, 20)])
    write_page(tmp_path / "page.html", results, '<script>alert("1")</script>', "in <i>$table</i>")
    text = (tmp_path / "page.html").read_text()
    page = Reader(text)
    assert "a <b>\"odd\" & 'very' #1? 100%.mp4" in page.texts and "in <i>$table</i>" in page.texts
    assert len(page.values("h1", "class")) == 0 and [tag for tag, _ in page.tags].count("script") == 1
    links = page.values("a", "href")
    own = "./videos/a%20%3Cb%3E%22odd%22%20%26%20%27very%27%20%231%3F%20100%25.mp4"
    assert links[:4] == [f"{own}#t={times}" for times in ("0.200", "0.800", "1.200", "0.200,1.240")]
    assert links[4] == f"{elsewhere.as_uri()}#t=0.400"
    pictures = [Image.open(io.BytesIO(base64.b64decode(src.split(",")[1]))) for src in page.values("img", "src")]
    assert [picture.size for picture in pictures] == [(324, 216)] * 6
    assert all(src.startswith("data:image/jpeg;base64,") for src in page.values("img", "src"))
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text) and "url(" not in text and "@import" not in text


def test_the_page_is_package_data():
    assert '"commands/*.html"' in (ROOT / "setup.py").read_text()
    assert "src *.py *.html" in (ROOT / "MANIFEST.in").read_text()


def test_only_the_pages_own_script_may_run(video, tmp_path):
    write_page(tmp_path / "page.html", [], "a", "b")
    text = (tmp_path / "page.html").read_text()
    script = re.search("<script>(.*)</script>", text, re.DOTALL)[1]
    policy = next(value for value in Reader(text).values("meta", "content") if "script-src" in value)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy
