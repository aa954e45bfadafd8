"""Views of a test: several clips and crops of one video, whose predictions are averaged.

VideoMAE and VideoMAE V2 test with 5 clips of every 4th frame and 3 crops each (Kinetics, UCF101, HMDB51), or with 2
clips of frames from all over the video and 3 crops each (Something-Something v2). `classify_views` of a classifier
averages what it makes of them.

Source: OpenGVLab/VideoMAEv2 at 29eab1e8, `dataset/datasets.py`. It places views by numbers with rounding errors and
cuts them to integers; so does this, to take the same frames.
"""

import numpy as np
from transformers.video_utils import VideoMetadata

from .sample import check_positive, total_num_frames


def dense_view_indices(
    video: int | VideoMetadata, num_frames: int = 16, stride: int = 4, num_views: int = 5
) -> np.ndarray:
    """Clips of every `stride`-th frame, whose starts are spread evenly from the first to the last that is possible.

    Args:
        video: number of frames, or metadata with `total_num_frames`. Where every `stride`-th frame of it gives fewer
            than `num_frames`, the last of these is repeated, in all views alike.
        num_frames, stride, num_views: at least 1. One view lies in the middle.

    Returns:
        int64 of shape (num_views, num_frames).
    """
    total = _checked(video, num_frames=num_frames, stride=stride, num_views=num_views)
    frames = np.arange(0, total, stride, dtype=np.int64)
    starts = _spread(max(len(frames) - num_frames, 0), num_views)
    return frames[np.minimum(starts[:, None] + np.arange(num_frames), len(frames) - 1)]


def sparse_view_indices(video: int | VideoMetadata, num_frames: int = 16, num_views: int = 2) -> np.ndarray:
    """Clips that each reach over the whole video, a frame of each of `num_frames` equal parts.

    Args:
        video: number of frames, or metadata with `total_num_frames`; where it has fewer than asked, indices repeat.
        num_frames, num_views: at least 1.

    Returns:
        int64 of shape (num_views, num_frames).
    """
    total = _checked(video, num_frames=num_frames, num_views=num_views)
    part = total / num_frames
    offsets = np.arange(num_views)[:, None] * part / num_views
    indices = (offsets + part * np.arange(num_frames)).astype(np.int64)
    return np.sort(indices, axis=None).reshape(num_frames, num_views).T.copy()


def view_crop_starts(height: int, width: int, size: int, num_crops: int = 3) -> np.ndarray:
    """Where squares begin that are spread evenly along the longer side, in the middle of the other one.

    Args:
        height, width: of the frames in pixels, at least `size`. The original resizes the shorter side to it.
        size: side of a square.
        num_crops: at least 1. One lies in the middle.

    Returns:
        int64 of shape (num_crops, 2): top and left.

    Raises:
        ValueError: frames smaller than a square.
    """
    if size > min(height, width):
        raise ValueError(f"Crops of {size} pixels don't fit into frames of {height} × {width}: resize them before.")
    _checked(1, size=size, num_crops=num_crops)
    longer, shorter = _spread(max(height, width) - size, num_crops), (min(height, width) - size) // 2
    starts = np.full((num_crops, 2), shorter, dtype=np.int64)
    starts[:, 0 if height >= width else 1] = longer
    return starts


def _spread(last: int, count: int) -> np.ndarray:
    """(count,) numbers from 0 to `last`, or the middle for one."""
    if count == 1:
        return np.array([last // 2])
    return (np.arange(count) * (last / (count - 1))).astype(np.int64)


def _checked(video: int | VideoMetadata, **numbers: int) -> int:
    """The number of frames of a video; all numbers must be above zero."""
    for name, number in numbers.items():
        check_positive(name, number)
    return total_num_frames(video)
