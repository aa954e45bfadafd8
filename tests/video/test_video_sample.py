"""Frame sampling, against numpy's and transformers' own arithmetic."""

from functools import partial

import numpy as np
import pytest
from transformers.video_utils import VideoMetadata, default_sample_indices_fn

from vidformers.video.sample import all_indices, contiguous_indices, fps_indices, uniform_indices


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
