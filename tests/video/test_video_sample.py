"""Frame sampling, against numpy's and transformers' own arithmetic."""

from functools import partial

import numpy as np
import pytest
from transformers.video_utils import VideoMetadata, default_sample_indices_fn

from vidformers.video.metadata import VideoFileMetadata
from vidformers.video.sample import (
    SAMPLERS,
    all_indices,
    contiguous_indices,
    fps_indices,
    named_sampler,
    seconds_indices,
    spread_clip_indices,
    uniform_indices,
)


ALL = [
    all_indices,
    partial(uniform_indices, num_frames=4),
    partial(fps_indices, fps=2, video_fps=10),
    partial(contiguous_indices, num_frames=4),
]


def test_uniform_without_endpoint_is_the_default_of_transformers():
    for total in range(1, 90):
        metadata = VideoMetadata(total_num_frames=total)
        for num_frames in range(1, total + 1):
            expected = default_sample_indices_fn(metadata, num_frames=num_frames)
            np.testing.assert_array_equal(uniform_indices(metadata, num_frames), expected)


@pytest.mark.parametrize("num_frames", [1, 2, 4, 8, 16, 32])
def test_uniform_without_endpoint_is_linspace_for_powers_of_two(num_frames):
    for total in range(1, 700):
        expected = np.linspace(0, total, num_frames, endpoint=False, dtype=np.int32)
        np.testing.assert_array_equal(uniform_indices(total, num_frames), expected)


def test_uniform_with_endpoint_spans_first_to_last():
    for total in range(1, 90):
        for num_frames in range(2, 40):
            expected = [int(i * (total - 1) / (num_frames - 1)) for i in range(num_frames)]
            assert uniform_indices(total, num_frames, endpoint=True).tolist() == expected


@pytest.mark.parametrize("endpoint", [True, False])
def test_uniform_of_short_videos(endpoint):
    assert uniform_indices(1, 4, endpoint).tolist() == [0, 0, 0, 0]
    assert uniform_indices(7, 1, endpoint).tolist() == [0]
    assert uniform_indices(2, 4, endpoint).tolist() == ([0, 0, 0, 1] if endpoint else [0, 0, 1, 1])


@pytest.mark.parametrize("fps", [0.01, 1, 2.5, 7, 25])
def test_fps_is_the_sampling_of_transformers(fps):
    for total in (1, 2, 24, 25, 26, 100, 251):
        metadata = VideoMetadata(total_num_frames=total, fps=25.0)
        np.testing.assert_array_equal(fps_indices(metadata, fps), default_sample_indices_fn(metadata, fps=fps))


def test_fps_errors():
    with pytest.raises(ValueError, match="needs the video's own rate"):
        fps_indices(10, 2)
    with pytest.raises(ValueError, match="at most the video's own 25, got 50"):
        fps_indices(10, 50, video_fps=25)
    with pytest.raises(ValueError, match="fps above 0"):
        fps_indices(10, 0, video_fps=25)


def test_contiguous():
    assert contiguous_indices(100, 4, stride=3, start=5).tolist() == [5, 8, 11, 14]
    assert contiguous_indices(6, 4, stride=2, start=1).tolist() == [1, 3, 5, 5]
    assert contiguous_indices(1, 3).tolist() == [0, 0, 0]
    for start in (-1, 6):
        with pytest.raises(ValueError, match="start from 0 to 5"):
            contiguous_indices(6, 2, start=start)
    with pytest.raises(ValueError, match="stride above 0"):
        contiguous_indices(6, 2, stride=0)


def test_all():
    assert all_indices(3).tolist() == [0, 1, 2]


@pytest.mark.parametrize("function", ALL)
def test_common_contract(function):
    for video in (37, np.int64(37), VideoMetadata(total_num_frames=37, fps=10)):
        indices = function(video)
        assert indices.dtype == np.int64 and (np.diff(indices) >= 0).all() and indices.max() < 37
    with pytest.raises(ValueError, match="of a video that has 0"):
        function(0)
    for wrong in (None, 3.0, True, "clip.mp4"):
        with pytest.raises(TypeError, match="number of frames"):
            function(wrong)


@pytest.mark.parametrize("function", [uniform_indices, contiguous_indices])
def test_num_frames_must_be_positive(function):
    with pytest.raises(ValueError, match="num_frames above 0, got 0"):
        function(10, 0)


# ------------------------------------------------------------------------------------------------------------- by time

UNEVEN = VideoFileMetadata(total_num_frames=6, fps=3.0, duration=2.0)
UNEVEN.frame_seconds = np.array([0.5, 0.6, 0.7, 1.5, 2.0, 2.4])  # the last frame ends at 2.5


def test_seconds():
    assert seconds_indices(UNEVEN, [0.5, 0.55, 0.6, 1.49, 1.5, 2.49, 0.7]).tolist() == [0, 0, 1, 2, 3, 5, 2]
    assert seconds_indices(UNEVEN, [0.5999999]).tolist() == [1]  # times are rounded
    assert seconds_indices(UNEVEN, slice(0.65, 2.0)).tolist() == [1, 2, 3]
    assert seconds_indices(UNEVEN, slice(1.5, None)).tolist() == [3, 4, 5]
    assert seconds_indices(UNEVEN, slice(None, None)).tolist() == [0, 1, 2, 3, 4, 5]
    assert seconds_indices(UNEVEN, slice(0.5, 2.5, 0.5)).tolist() == [0, 2, 3, 4]
    for outside in ([0.4], [2.5], slice(0.1, 1.0), [-1.0]):
        with pytest.raises(IndexError, match="shows frames from 0.500 to 2.500 seconds"):
            seconds_indices(UNEVEN, outside)
    for wrong in (slice(2.0, 1.0), slice(0.5, 1.0, 0), [[1.0]], [np.nan]):
        with pytest.raises(ValueError, match="slice of seconds|flat sequence of finite numbers"):
            seconds_indices(UNEVEN, wrong)
    with pytest.raises(ValueError, match="needs their times or the video's rate"):
        seconds_indices(10, [1.0])


def test_fps_by_time_takes_what_is_shown_at_each_tick():
    assert fps_indices(UNEVEN, 2, by="time").tolist() == [0, 2, 3, 4]  # 0.5, 1.0, 1.5, 2.0 seconds
    assert fps_indices(UNEVEN, 10, by="time").tolist() == [0, 1] + [2] * 8 + [3] * 5 + [4] * 4 + [5]
    assert fps_indices(UNEVEN, 0.1, by="time").tolist() == [0]
    even = VideoMetadata(total_num_frames=50, fps=25.0)
    assert fps_indices(even, 5, by="time").tolist() == fps_indices(even, 5).tolist() == list(range(0, 50, 5))
    with pytest.raises(ValueError, match='by="number" or "time", got \'frames\''):
        fps_indices(UNEVEN, 2, by="frames")


def test_clips():
    assert spread_clip_indices(100, 4, stride=2).tolist() == [[46, 48, 50, 52]]
    assert spread_clip_indices(100, 3, num_clips=3).tolist() == [[0, 1, 2], [48, 49, 50], [97, 98, 99]]
    assert spread_clip_indices(3, 4, stride=2, num_clips=2).tolist() == [[0, 2, 2, 2]] * 2
    with pytest.raises(ValueError, match="num_clips above 0"):
        spread_clip_indices(10, 2, num_clips=0)


def test_samplers_by_name():
    assert named_sampler("middle", num_frames=4)(100).tolist() == [48, 49, 50, 51]
    assert named_sampler("uniform_to_end", num_frames=2, fps=3)(100).tolist() == [0, 99]
    assert named_sampler("fps_by_time", fps=2)(UNEVEN).tolist() == [0, 2, 3, 4]
    for name, (_, needed) in SAMPLERS.items():
        assert named_sampler(name, num_frames=2, fps=2)(UNEVEN).dtype == np.int64
        if needed:
            with pytest.raises(ValueError, match=f'sampling="{name}" needs {needed}'):
                named_sampler(name)
    with pytest.raises(ValueError, match="one of uniform, .*, all, got 'random'"):
        named_sampler("random")
