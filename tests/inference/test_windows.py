"""Windows of a video: each case of the rules, and what holds for any video and any setting."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

import vidformers
from tests.video_files import write_video
from vidformers.inference.windows import WINDOW_PRESETS, Window, Windows
from vidformers.video import probe_video
from vidformers.video.metadata import VideoFileMetadata


TEN = np.arange(10) / 10  # ten frames in a second


def spans(windows: list[Window]) -> list[tuple[float, float]]:
    return [(round(each.start_seconds, 6), round(each.end_seconds, 6)) for each in windows]


def frames(windows: list[Window]) -> list[tuple[int, ...]]:
    return [each.frame_indices for each in windows]


# --------------------------------------------------------------------------------------------------------- edge rules

# Windows of four frames, every three: the third one reaches from frame 6 to frame 9, the fourth would lack two.
EDGES_OF_FRAMES = {
    "drop": [(0, 1, 2, 3), (3, 4, 5, 6)],
    "pad": [(0, 1, 2, 3), (3, 4, 5, 6), (6, 7, 8, 8)],
    "move_back": [(0, 1, 2, 3), (3, 4, 5, 6), (5, 6, 7, 8)],
    "keep": [(0, 1, 2, 3), (3, 4, 5, 6), (6, 7, 8)],
}


@pytest.mark.parametrize("edge", EDGES_OF_FRAMES)
def test_the_last_window_in_frames(edge):
    found = Windows(4, 3, unit="frames", edge=edge)(TEN[:9])
    assert frames(found) == EDGES_OF_FRAMES[edge]
    last = {"drop": (0.3, 0.7), "move_back": (0.5, 0.9)}.get(edge, (0.6, 0.9))
    assert spans(found)[-1] == last and [each.number for each in found] == list(range(len(found)))
    assert frames(Windows(4, 3, unit="frames", edge=edge)(TEN)) == [(0, 1, 2, 3), (3, 4, 5, 6), (6, 7, 8, 9)]


EDGES_OF_SECONDS = {
    "drop": ([(0.0, 0.4), (0.3, 0.7)], (3, 5)),
    "pad": ([(0.0, 0.4), (0.3, 0.7), (0.6, 0.9)], (6, 8)),
    "move_back": ([(0.0, 0.4), (0.3, 0.7), (0.5, 0.9)], (5, 7)),
    "keep": ([(0.0, 0.4), (0.3, 0.7), (0.6, 0.9)], (6, 7)),
}


@pytest.mark.parametrize("edge", EDGES_OF_SECONDS)
def test_the_last_window_in_seconds(edge):
    found = Windows(0.4, 0.3, num_frames=2, edge=edge)(TEN[:9])
    assert (spans(found), found[-1].frame_indices) == EDGES_OF_SECONDS[edge]
    assert frames(found)[:2] == [(0, 2), (3, 5)]


def test_a_video_shorter_than_a_window():
    short = {
        edge: frames(Windows(4, 2, unit="frames", edge=edge)(TEN[:3])) for edge in ("drop", "pad", "move_back", "keep")
    }
    assert short == {"drop": [], "pad": [(0, 1, 2, 2)], "move_back": [(0, 1, 2, 2)], "keep": [(0, 1, 2)]}
    for edge, indices in {
        "drop": [],
        "pad": [(0, 1, 2, 2)],
        "move_back": [(0, 1, 2, 2)],
        "keep": [(0, 0, 1, 2)],
    }.items():
        found = Windows(0.4, 0.2, num_frames=4, edge=edge)(TEN[:3])
        assert frames(found) == indices and spans(found) == [(0.0, 0.3)] * len(indices)


@pytest.mark.parametrize("settings", [{"length": 4, "unit": "frames"}, {"length": 0.4, "num_frames": 4}])
def test_a_video_of_one_frame(settings):
    for edge, end in itertools.product(("pad", "move_back", "keep"), (None, 2.04)):
        (only,) = Windows(**settings, edge=edge)([2.0], end_seconds=end)
        assert set(only.frame_indices) == {0}
        assert (only.start_seconds, only.end_seconds) == (2.0, end or 2.0)
        assert only.middle_seconds == (2.0 + (end or 2.0)) / 2
    assert Windows(**settings, edge="drop")([2.0]) == []


@pytest.mark.parametrize("settings", [{"length": 4, "unit": "frames"}, {"length": 0.4, "num_frames": 2}])
def test_a_tail_of_less_than_two_frames_is_no_window_of_its_own(settings):
    windows = Windows(**settings, edge="keep")
    assert spans(windows(TEN[:9])) == [(0.0, 0.4), (0.4, 0.8)]
    assert spans(windows(TEN)) == [(0.0, 0.4), (0.4, 0.8), (0.8, 1.0)]
    assert spans(windows(TEN[:1], end_seconds=0.1)) == [(0.0, 0.1)]


# ---------------------------------------------------------------------------------------------------------- alignment


def test_windows_around_anchors():
    found = Windows(4, 3, unit="frames", edge="pad", align="middle")(TEN[:8])
    assert frames(found) == [(0, 0, 0, 1), (1, 2, 3, 4), (4, 5, 6, 7)]
    assert [round(each.middle_seconds, 6) for each in found] == [0.0, 0.3, 0.6]
    assert spans(found) == [(0.0, 0.2), (0.1, 0.5), (0.4, 0.8)]
    assert frames(Windows(4, 3, unit="frames", edge="drop", align="middle")(TEN[:8])) == frames(found)[1:]
    assert frames(Windows(4, 3, unit="frames", edge="keep", align="middle")(TEN[:8]))[0] == (0, 1)
    seconds = Windows(0.4, 0.3, num_frames=4, edge="pad", align="middle")(TEN[:8])
    assert frames(seconds) == frames(found) and spans(seconds) == spans(found)


def test_causal_windows_see_nothing_later():
    found = Windows(4, 2, unit="frames", edge="pad", align="end")(TEN[:7])
    assert frames(found) == [(0, 0, 0, 1), (0, 1, 2, 3), (2, 3, 4, 5), (4, 5, 6, 6)]
    assert [each.end_seconds for each in found][:3] == pytest.approx([0.2, 0.4, 0.6])
    every = Windows(3, 1, unit="frames", edge="keep", align="end")(TEN[:5])
    assert frames(every) == [(0,), (0, 1), (0, 1, 2), (1, 2, 3), (2, 3, 4)]


def test_gaps_between_windows():
    assert frames(Windows(2, 4, unit="frames")(TEN[:8])) == [(0, 1), (4, 5)]
    assert spans(Windows(0.2, 0.4)(TEN[:9])) == [(0.0, 0.2), (0.4, 0.6)]


# ----------------------------------------------------------------------------------------------------------- any video


def videos() -> list[tuple[np.ndarray, float]]:
    generator, made = np.random.default_rng(0), []
    for _ in range(60):
        total = int(generator.integers(1, 60))
        steps = generator.integers(1, 200, total) / 1000 if generator.random() < 0.7 else np.full(total, 0.04)
        times = np.concatenate([[0.0], np.cumsum(steps)]) + generator.choice([0.0, 1.4, -0.3])
        made.append((times[:-1], float(times[-1])))
    return made


SETTINGS = [
    Windows(length, step, unit, num_frames, edge, align)
    for (unit, length, step), num_frames, edge, align in itertools.product(
        (("frames", 7, 3), ("frames", 4, 9), ("seconds", 0.5, 0.2), ("seconds", 0.1, 0.35)),
        (None, 5),
        ("drop", "pad", "move_back", "keep"),
        ("start", "middle", "end"),
    )
    if not (edge == "move_back" and align != "start")
    and not (align == "end" and step > length)
    and not (unit == "seconds" and num_frames is None and edge in ("pad", "move_back"))
]


@pytest.mark.parametrize("windows", SETTINGS, ids=lambda windows: "-".join(map(str, windows.record.values())))
def test_what_holds_for_any_video(windows):
    for times, end in videos():
        found = windows(times, end)
        assert [each.number for each in found] == list(range(len(found)))
        assert found or windows.edge == "drop"
        for window, following in itertools.zip_longest(found, found[1:]):
            indices = np.array(window.frame_indices)
            assert (np.diff(indices) >= 0).all() and indices[0] >= 0 and indices[-1] < len(times)
            assert times[0] <= window.start_seconds <= window.middle_seconds <= window.end_seconds <= end
            assert (times[indices] < window.end_seconds + 1e-6).all()
            # A frame is shown until the next one: the first may have begun before the window.
            assert np.append(times, end)[indices[0] + 1] > window.start_seconds - 1e-6
            if windows.num_frames:
                assert len(indices) == windows.num_frames
            if following:
                assert following.frame_indices[0] >= indices[0] and following.frame_indices[-1] >= indices[-1]
                assert following.start_seconds >= window.start_seconds
        covers = windows.step <= windows.length and windows.edge != "drop"
        if covers and windows.num_frames is None and windows.align == "start":
            missing = set(range(len(times))) - {index for window in found for index in window.frame_indices}
            assert not missing or (
                windows.edge == "keep" and len(missing) * windows.step < windows.length * len(times)
            )
        assert windows(VideoFileMetadata(total_num_frames=len(times), fps=25.0)) or windows.edge == "drop"


def test_seconds_are_those_of_an_uneven_file(tmp_path):
    milliseconds = np.cumsum(np.random.default_rng(1).integers(10, 300, 40)) + 700
    path = write_video(tmp_path / "uneven.mp4", pts=milliseconds.tolist(), time_base=Fraction(1, 1000))
    metadata = probe_video(path)
    times = metadata.frame_seconds
    for window in Windows(1.0, 0.5, num_frames=4)(metadata):
        wanted = window.start_seconds + np.arange(4) / 4 * (window.end_seconds - window.start_seconds)
        assert window.frame_indices == tuple(int(np.flatnonzero(times <= at + 1e-6)[-1]) for at in wanted)
    starts = [window.start_seconds for window in Windows(8, 4, unit="frames")(metadata)]
    assert starts == times[: len(starts) * 4 : 4].tolist()
    assert not np.allclose(starts, times[0] + np.arange(len(starts)) * 4 / metadata.fps, atol=0.05)


# ------------------------------------------------------------------------------------------------------------- presets


@pytest.mark.parametrize("total", [1, 15, 16, 17, 50])
def test_presets_of_detection(total):
    times = np.arange(total) / 25
    starts = list(range(0, total - 15, 4))  # as VideoMAE V2's script
    for name in ("videomae_v2_thumos", "actionformer"):
        found = Windows.preset(name)(times)
        assert frames(found) == [tuple(range(start, start + 16)) for start in starts]
        # ActionFormer's time of row i: (i * stride + length / 2) / fps
        assert [each.middle_seconds for each in found] == pytest.approx([(start + 8) / 25 for start in starts])
    centered = Windows.preset("opentad")(times)
    expected = [tuple(np.clip(np.arange(c - 8, c + 8), 0, total - 1).tolist()) for c in range(0, total, 4)]
    assert frames(centered) == expected
    assert [each.middle_seconds for each in centered] == pytest.approx(np.arange(0, total, 4) / 25)


@pytest.mark.parametrize("seconds", [0.04, 5.0, 10.0, 10.06, 10.1, 25.0, 30.0])
def test_preset_of_rt_embed(seconds):
    """Chunks as its FileSplitter makes them, and the first frame at or after each of eight times of a chunk."""
    times = np.arange(round(seconds * 25)) / 25
    end, chunks, start = len(times) / 25, [], 0.0
    while not chunks or chunks[-1][1] < end:
        stop = min(start + 10.0, end)
        if chunks and stop - start < 2 / 25 - 1e-9:
            break
        chunks.append((start, stop))
        start += 10.0
    found = Windows.preset("rt_embed")(times, end)
    np.testing.assert_allclose([(each.start_seconds, each.end_seconds) for each in found], chunks)
    for window, (start, stop) in zip(found, chunks, strict=True):
        wanted = [start + i * (stop - start) / 8 for i in range(8)]
        first = [next((n for n, at in enumerate(times) if at >= time - 1e-6), len(times) - 1) for time in wanted]
        assert list(window.frame_indices) == first


def test_whole_and_changes():
    assert frames(Windows.preset("whole")(TEN)) == [tuple(range(10))]
    (whole,) = Windows.preset("whole", num_frames=4)(TEN)
    assert whole.frame_indices == (0, 2, 5, 7) and (whole.start_seconds, whole.end_seconds) == (0.0, 1.0)
    assert Windows.preset("rt_embed", step=5.0).step == 5.0 and WINDOW_PRESETS["rt_embed"].step == 10.0
    assert vidformers.Windows is Windows


# ------------------------------------------------------------------------------------------------------------ settings


def test_words():
    assert Windows.parse("4s", "2s", num_frames=8) == Windows(4.0, 2.0, num_frames=8)
    assert Windows.parse(".5s") == Windows(0.5, 0.5)
    assert Windows.parse("16f", "4 f", edge="pad") == Windows(16, 4, unit="frames", edge="pad")
    assert Windows.parse("opentad", align=None) == Windows.preset("opentad")
    for wrong in (("4",), ("4s", "2f"), ("s",), ("opentad", "4f"), ("four",)):
        with pytest.raises(ValueError, match="Expected a window such as 4s or 16f"):
            Windows.parse(*wrong)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 0}, "length as a number above 0, got 0"),
        ({"length": 4, "step": -1}, "step as a number above 0"),
        ({"length": math.nan}, "length as a number above 0"),
        ({"length": 4, "step": math.inf}, "finite step"),
        ({"length": 2.5, "unit": "frames"}, "length as a whole number of frames, got 2.5"),
        ({"length": 4, "num_frames": 1.5}, "num_frames as a whole number"),
        ({"length": 4, "unit": "minutes"}, "unit to be one of seconds, frames, got 'minutes'"),
        ({"length": 4, "edge": "cut"}, "edge to be one of drop, pad, move_back, keep"),
        ({"length": 4, "align": "left"}, "align to be one of start, middle, end"),
        ({"length": 4, "edge": "pad"}, "pass num_frames"),
        ({"length": 4, "unit": "frames", "edge": "move_back", "align": "end"}, 'takes align="start"'),
        ({"length": 2, "step": 3, "align": "end"}, "step of at most the length"),
        ({"length": math.inf, "edge": "drop"}, 'whole video takes edge="keep"'),
    ],
)
def test_settings_without_meaning(settings, message):
    with pytest.raises(ValueError, match=message):
        Windows(**settings)


def test_videos_without_frames_or_times():
    with pytest.raises(ValueError, match="without frames"):
        Windows(1.0)([])
    with pytest.raises(ValueError, match="their times or the video's rate"):
        Windows(1.0)(VideoFileMetadata(total_num_frames=10))
    with pytest.raises(ValueError, match="windows to be one of whole, videomae_v2_thumos"):
        Windows.preset("thumos")
