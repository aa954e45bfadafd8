"""Cutting a video into windows: a pure function from the times of its frames to the frames of each window."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from transformers.video_utils import VideoMetadata

from vidformers.video.sample import TICK, duration_of, frame_seconds_of, shown_at


UNITS = ("seconds", "frames")
EDGES = ("drop", "pad", "move_back", "keep")
ALIGNMENTS = ("start", "middle", "end")
FRAME_CHOICES = ("shown", "next")


@dataclass(frozen=True)
class Window:
    """A part of a video.

    Attributes:
        number: its place among the video's windows.
        frame_indices: the frames to take, never decreasing.
        start_seconds, end_seconds: the part of the video that it covers, on the file's own clock.
        middle_seconds: the time that it stands for: its anchor where windows are aligned by the middle, otherwise
            halfway between start and end.
    """

    number: int
    frame_indices: tuple[int, ...]
    start_seconds: float
    middle_seconds: float
    end_seconds: float


@dataclass(frozen=True)
class Windows:
    """How to cut videos into windows.

    Window k belongs to the anchor `k * step` after the first frame. It starts there, has its middle there, or ends
    `step` after it and sees nothing later. Frame i is shown from its own time to that of frame i + 1, the last one to
    the end of the video.

    Calling it cuts one video. A window shows from `start` to before `stop`. With `num_frames`, its frames are those at
    `start + i * (stop - start) / num_frames`; without, all of them.

    Args:
        length: of a window, in `unit`; infinity for one window of the whole video.
        step: from one anchor to the next, by default `length`.
        unit: "seconds" of the file's clock, or "frames".
        num_frames: frames to take of a window.
        edge: what becomes of a window that reaches beyond the video. "drop" leaves it out. "pad" repeats the first or
            the last frame. "move_back" moves it so that it ends with the video, and pads it where the video is
            shorter. "keep" cuts it; the last one is left out where less than two frames of it remain, unless it is the
            only one.
        align: "start", "middle" or "end".
        frame: for seconds and `num_frames`, "shown" takes the frame that is shown at a time, "next" the first one that
            begins then or later.

    Raises:
        ValueError: an unknown name, a number that is not above 0, or a combination without meaning.
    """

    length: float
    step: float | None = None
    unit: str = "seconds"
    num_frames: int | None = None
    edge: str = "keep"
    align: str = "start"
    frame: str = "shown"

    def __post_init__(self):
        if self.step is None:
            object.__setattr__(self, "step", self.length)
        known = {"unit": UNITS, "edge": EDGES, "align": ALIGNMENTS, "frame": FRAME_CHOICES}
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ValueError(f"Expected {name} to be one of {', '.join(values)}, got {getattr(self, name)!r}.")
        self._check_numbers()
        if self.is_whole and (self.edge, self.align) != ("keep", "start"):
            raise ValueError('A window of the whole video takes edge="keep" and align="start".')
        if self.edge == "move_back" and self.align != "start":
            raise ValueError('edge="move_back" moves the last window only: it takes align="start".')
        if self.align == "end" and self.step > self.length:
            raise ValueError('align="end" takes a step of at most the length.')
        if self.edge in ("pad", "move_back") and self.unit == "seconds" and self.num_frames is None:
            raise ValueError(f'edge="{self.edge}" has to know how many frames to fill: pass num_frames.')

    def _check_numbers(self) -> None:
        for name in ("length", "step", "num_frames"):
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0:
                raise ValueError(f"Expected {name} as a number above 0, got {value!r}.")
            if value != math.inf and (name == "num_frames" or self.unit == "frames"):
                if value != int(value):
                    raise ValueError(f"Expected {name} as a whole number of frames, got {value!r}.")
                object.__setattr__(self, name, int(value))
        if self.num_frames == math.inf or (self.step == math.inf and not self.is_whole):
            raise ValueError("Expected a finite step and number of frames; only the length may be infinite.")

    @property
    def is_whole(self) -> bool:
        """Whether one window shows the whole video."""
        return self.length == math.inf

    @property
    def record(self) -> dict[str, Any]:
        """The settings as JSON takes them; length and step are `None` for the whole video."""
        finite = {name: None for name in ("length", "step") if getattr(self, name) == math.inf}
        return {**asdict(self), **finite}

    @classmethod
    def preset(cls, name: str, **changes: Any) -> "Windows":
        """A convention in use.

        Args:
            name: a key of `WINDOW_PRESETS`.
            **changes: other values of fields.

        Raises:
            ValueError: an unknown name.
        """
        if name not in WINDOW_PRESETS:
            raise ValueError(f"Expected windows to be one of {', '.join(WINDOW_PRESETS)}, got {name!r}.")
        return replace(WINDOW_PRESETS[name], **changes)

    @classmethod
    def parse(cls, length: str, step: str | None = None, **fields: Any) -> "Windows":
        """Windows from words, as the command line takes them.

        Args:
            length: such as "4s" or "16f" (frames), or the name of a preset, which then says the rest.
            step: in the same unit.
            **fields: other fields; `None` leaves the default.

        Raises:
            ValueError: a text that is neither, or two units.
        """
        fields = {name: value for name, value in fields.items() if value is not None}
        if step is None and length in WINDOW_PRESETS:
            return cls.preset(length, **fields)
        found = [re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([sf])", text.strip()) for text in (length, step or length)]
        if None in found or found[0][2] != found[1][2]:
            given = length if step is None else f"{length} and {step}"
            raise ValueError(
                f"Expected a window such as 4s or 16f (frames), its step in the same unit, or one of "
                f"{', '.join(WINDOW_PRESETS)} without a step; got {given}."
            )
        unit = {"s": "seconds", "f": "frames"}[found[0][2]]
        numbers = [float(each[1]) if unit == "seconds" or "." in each[1] else int(each[1]) for each in found]
        return cls(*numbers, unit=unit, **fields)

    def __call__(
        self, video: VideoMetadata | Sequence[float] | np.ndarray, end_seconds: float | None = None
    ) -> list[Window]:
        """Cut a video.

        Args:
            video: its metadata, or when each frame is shown, in seconds, ascending.
            end_seconds: when the last frame ends; by default as the metadata says, or as long after its time as frames
                are apart in the median.

        Returns:
            Its windows in order; none where all were dropped.

        Raises:
            ValueError: a video without frames, or neither times nor a rate are known.
        """
        given = isinstance(video, VideoMetadata)
        times = frame_seconds_of(video, None) if given else np.asarray(video, dtype=np.float64)
        if not len(times):
            raise ValueError("Cannot cut a video without frames into windows. Check that it was decoded.")
        if end_seconds is None:
            end_seconds = times[0] + duration_of(video, times)
        cut = self._by_frames if self.unit == "frames" else self._by_seconds
        return [Window(number, *each) for number, each in enumerate(cut(times, float(end_seconds)))]

    def _by_frames(self, times: np.ndarray, end_seconds: float) -> Iterator[tuple]:
        total = len(times)
        for anchor, start, stop in self._spans(0, total, 0, 2):
            count = int(self.num_frames or stop - start)
            indices = start + np.arange(count) * (stop - start) // count
            shown = times[max(start, 0)], times[stop] if stop < total else end_seconds
            middle = times[anchor] if self.align == "middle" else sum(shown) / 2
            yield _indices(indices, total), float(shown[0]), float(middle), float(shown[1])

    def _by_seconds(self, times: np.ndarray, end_seconds: float) -> Iterator[tuple]:
        first, total = float(times[0]), len(times)
        two_frames = 2 * (end_seconds - first) / total
        for anchor, start, stop in self._spans(first, end_seconds, TICK, two_frames):
            if self.num_frames is None:
                frame = int(shown_at(times, np.array([start]))[0])
                indices = np.arange(frame, max(np.searchsorted(times, stop - TICK), frame + 1))
            else:
                wanted = start + (stop - start) * np.arange(self.num_frames) / self.num_frames
                shown = self.frame == "shown"
                indices = shown_at(times, wanted) if shown else np.searchsorted(times, wanted - TICK)
            shown = max(start, first), min(stop, end_seconds)
            yield _indices(indices, total), shown[0], anchor if self.align == "middle" else sum(shown) / 2, shown[1]

    def _spans(self, first: float, end: float, tick: float, smallest: float) -> Iterator[tuple]:
        """(anchor, start, stop) of each window between the first and the end, after what the edges do to it.

        Args:
            first, end: of the video, in `unit`.
            tick: by how much numbers may be rounded.
            smallest: how much of a last window that is cut must remain.
        """
        number, made = 0, 0
        while True:
            anchor = first if self.is_whole else first + number * self.step
            if number and self.align != "end" and anchor >= end - tick:
                return
            start = anchor - self._before_anchor
            stop = start + self.length
            span = self._at_the_edge(start, stop, first, end, tick)
            cut_short = self.edge == "keep" and stop > end + tick and span[1] - span[0] < smallest - tick
            if span and not (cut_short and made):
                yield (anchor, *span)
                made += 1
            number += 1
            if self.align != "middle" and stop >= end - tick:
                return

    @property
    def _before_anchor(self) -> float:
        """How much of a window lies before its anchor."""
        half = self.length // 2 if self.unit == "frames" else self.length / 2
        return {"start": 0, "middle": half, "end": self.length - self.step}[self.align] if not self.is_whole else 0

    def _at_the_edge(self, start: float, stop: float, first: float, end: float, tick: float) -> tuple | None:
        if start >= first - tick and stop <= end + tick:
            return start, stop
        if self.edge == "drop":
            return None
        if self.edge == "keep":
            return max(start, first), min(stop, end)
        if self.edge == "move_back":
            start = max(end - self.length, first)
        return start, start + self.length


def _indices(indices: np.ndarray, total: int) -> tuple[int, ...]:
    return tuple(np.clip(indices, 0, total - 1).tolist())


WINDOW_PRESETS: dict[str, Windows] = {
    # One clip of the whole video, which most evaluation code takes.
    "whole": Windows(math.inf),
    # OpenGVLab/VideoMAEv2 29eab1e8, extract_tad_feature.py:89-102: starts range(0, n - 15, 4), the rest is dropped.
    "videomae_v2_thumos": Windows(16, 4, unit="frames", edge="drop"),
    # happyharrycn/actionformer_release 61ea7eb9, configs of THUMOS14: the same rows, read as standing for the middle
    # of their window (libs/modeling/meta_archs.py:740).
    "actionformer": Windows(16, 4, unit="frames", edge="drop"),
    # sming256/OpenTAD 3dd7b032, opentad/datasets/transforms/end_to_end.py:159-168: frames -8…7 around every fourth,
    # their numbers clamped.
    "opentad": Windows(16, 4, unit="frames", edge="pad", align="middle"),
    # NVIDIA-AI-Blueprints/video-search-and-summarization 88307460, services/rtvi/rt-embed/src/utils/file_splitter.py
    # and video_file_frame_getter.py; 10 s and 8 frames as in NVIDIA's figures.
    "rt_embed": Windows(10.0, 10.0, num_frames=8, edge="keep", frame="next"),
}
"""Conventions in use, by name."""
