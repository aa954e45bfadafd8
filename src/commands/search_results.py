"""What a search found, for eyes: a contact sheet, and a page that plays each part."""

import base64
import hashlib
import io
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import quote

from PIL import Image, ImageDraw, ImageFont, ImageOps

from vidformers.files import explained_write, written_whole
from vidformers.inference.search import Span
from vidformers.progress import Progress, no_progress
from vidformers.video import VideoReader


SIDES = (384, 216)
"""Width and height in pixels that a frame is made to fit in."""
MARGIN, GAP, LABEL, HEAD, ROW = 24, 8, 260, 96, SIDES[1] + 40
"""Of the sheet, in pixels: around it, between pictures, the width of what is said, the heights of title and row."""
BLACK, GRAY = "#111111", "#6a6a6a"
PAGE = Path(__file__).with_name("search_page.html")


@dataclass(frozen=True)
class Result:
    """A span and what it is shown by.

    Attributes:
        span: what was found.
        pictures: its first, middle and last frame, by their times in seconds, in `SIDES`; empty where the file cannot
            be read.
    """

    span: Span
    pictures: Mapping[float, Image.Image] = field(default_factory=dict)


def add_pictures(
    spans: Sequence[Span],
    on_failure: Callable[[str, str], None] = lambda video, reason: None,
    progress: Progress = no_progress,
) -> list[Result]:
    """Decode the frames that spans are shown by.

    Args:
        spans: what was found.
        on_failure: called with each video that cannot be read any more, and why.
        progress: called with an activity and how much of it is done.

    Returns:
        A result for each span, in the same order.
    """
    found: dict[Span, Result] = {}
    for video in dict.fromkeys(span.video for span in spans):
        try:
            for result in _read_pictures(video, [span for span in spans if span.video == video]):
                found[result.span] = result
                progress("reading pictures", len(found), len(spans))
        except IndexError:
            on_failure(video, "it has fewer frames than when it was embedded; embed it again")
        except (OSError, ValueError) as error:
            on_failure(video, str(error))
    return [found.get(span, Result(span)) for span in spans]


def _read_pictures(video: str, spans: Sequence[Span]) -> Iterator[Result]:
    """The results of one video, in the order of its frames."""
    if not os.path.isfile(video):  # an address would be fetched
        raise FileNotFoundError("there is no such file any more")
    reader, ordered = VideoReader(video), sorted(spans, key=lambda span: span.frame_indices)
    chosen = [sorted({seen[0], seen[len(seen) // 2], seen[-1]}) for seen in (span.frame_indices for span in ordered)]
    for span, (frames, metadata) in zip(ordered, reader.read_many(chosen), strict=True):
        times = metadata.seconds_of(metadata.frames_indices)
        images = (ImageOps.contain(Image.fromarray(frame), SIDES) for frame in frames)
        yield Result(span, dict(zip(times.tolist(), images, strict=True)))


def clock(seconds: float) -> str:
    """A time as players show it, to a tenth of a second: "1:02:03.5"; "?" where it is not known."""
    if math.isnan(seconds):
        return "?"
    tenths = round(10 * seconds)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest / 10:04.1f}" if hours else f"{minutes}:{rest / 10:04.1f}"


# ----------------------------------------------------------------------------------------------------------- the sheet


def write_sheet(path: str | os.PathLike, results: Sequence[Result], title: str, subtitle: str) -> None:
    """A picture with a row for each span: its score, time and file, and its first, middle and last frame.

    Args:
        path: the picture to write, a `.png`.
        results: the best first.
        title, subtitle: lines above them.

    Raises:
        OSError: it cannot be written.
    """
    width = 2 * MARGIN + LABEL + 3 * SIDES[0] + 2 * GAP
    sheet = Image.new("RGB", (width, HEAD + len(results) * ROW), "white")
    draw = ImageDraw.Draw(sheet)
    for text, y, size, color in ((title, MARGIN, 26, BLACK), (subtitle, MARGIN + 36, 15, GRAY)):
        font = ImageFont.load_default(size)
        draw.text((MARGIN, y), _shortened(text, font, width - 2 * MARGIN), color, font)
    for number, result in enumerate(results):
        _draw_row(sheet, draw, HEAD + number * ROW, number + 1, result)
    with written_whole(Path(path)) as (place,), explained_write(Path(path)):
        sheet.save(place)


def _draw_row(sheet: Image.Image, draw: ImageDraw.ImageDraw, top: int, rank: int, result: Result) -> None:
    span, (width, height) = result.span, SIDES
    video, times = Path(span.video), f"{clock(span.start_seconds)} to {clock(span.end_seconds)}"
    draw.line((MARGIN, top - 8, sheet.width - MARGIN - 1, top - 8), "#dddddd")
    for x, y, text, size, color in (
        (0, 0, f"{rank}", 26, GRAY),
        (44, 0, f"{span.score:.3f}", 26, BLACK),
        (0, 44, times, 18, BLACK),
        (0, 72, video.name, 18, BLACK),
        (0, 100, str(video.parent), 15, GRAY),
        (LABEL, height // 2, "" if result.pictures else "This file cannot be read.", 18, GRAY),
    ):
        font = ImageFont.load_default(size)
        draw.text((MARGIN + x, top + y), _shortened(text, font, LABEL - GAP), color, font)
    for place, (seconds, image) in enumerate(result.pictures.items()):
        left = MARGIN + LABEL + place * (width + GAP)
        draw.rectangle((left, top, left + width - 1, top + height - 1), "#eeeeee")
        sheet.paste(image, (left + (width - image.width) // 2, top + (height - image.height) // 2))
        draw.text((left, top + height + 4), clock(seconds), GRAY, ImageFont.load_default(15))


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """A text that fits in a width, without its middle where it is longer."""
    kept = len(text)
    while kept > 2 and font.getlength(short := _without_middle(text, kept)) > width:
        kept -= 1
    return short if kept > 2 else text[:1]


def _without_middle(text: str, kept: int) -> str:
    return text if kept >= len(text) else f"{text[: kept // 2]}…{text[len(text) - kept + kept // 2 :]}"


# ------------------------------------------------------------------------------------------------------------ the page


def write_page(path: str | os.PathLike, results: Sequence[Result], title: str, subtitle: str) -> None:
    """A page of HTML that shows what was found, with all that it needs in one file.

    A click on a picture plays the video from there. Links lead to the video's file, relative to the page's folder
    where it is in it or below, so that both can be moved together.

    Args:
        path: the page to write.
        results, title, subtitle: as for `write_sheet`.

    Raises:
        OSError: it cannot be written.
    """
    path, template = Path(path), PAGE.read_text("utf-8")
    script = re.search("<script>(.*?)</script>", template, re.DOTALL)[1]
    page = Template(template).substitute(
        title=escape(title),
        subtitle=escape(subtitle),
        # The only script that a browser runs in the page.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        results="\n".join(_item(number, result, path) for number, result in enumerate(results, start=1)),
    )
    with written_whole(path) as (place,), explained_write(path):
        place.write_text(page, "utf-8")


def _item(number: int, result: Result, page: Path) -> str:
    """The entry of a span in the list."""
    span, video = result.span, Path(result.span.video)
    frames = "".join(
        f'<a class="play" href="{_address(video, page, seconds)}" title="Play from {clock(seconds)}">'
        f'<img src="{_inlined(image)}" width="{image.width}" height="{image.height}" '
        f'alt="{escape(video.name)} at {clock(seconds)}"><span>{clock(seconds)}</span></a>'
        for seconds, image in result.pictures.items()
    )
    name = f"<b>{escape(video.name)}</b>"
    if result.pictures:
        address = _address(video, page, span.start_seconds, span.end_seconds)
        name = f'<a class="play" href="{address}">{name}</a>'
    return (
        f'<li><div class="frames">{frames or "<p>This file cannot be read.</p>"}</div>'
        f'<div class="about"><span class="rank">{number}</span><div class="file">{name}'
        f'<small title="{escape(str(video))}">{escape(str(video.parent))}</small></div>'
        f'<div class="numbers"><b>{clock(span.start_seconds)} – {clock(span.end_seconds)}</b>'
        f"<small>score {span.score:.3f}</small></div></div></li>"
    )


def _address(video: Path, page: Path, *seconds: float) -> str:
    """Where a browser finds a video, from a time on or between two."""
    folder = page.absolute().parent
    below = video.is_relative_to(folder)
    address = f"./{quote(video.relative_to(folder).as_posix())}" if below else video.as_uri()
    times = ",".join(f"{each:.3f}" for each in seconds if not math.isnan(each))
    return f"{address}#t={times}"


def _inlined(image: Image.Image) -> str:
    """A picture as an address that holds it."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
