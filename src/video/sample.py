"""Which frames to take: pure functions from a video's length to frame indices, int64 and never decreasing.

Every function takes the number of frames, or the metadata that holds it, so that `functools.partial(uniform_indices,
num_frames=16)` is a `sample` for [`~vidformers.video.decode_video`]. A video of one frame gives that frame; a video
shorter than asked is described at each function; a video without frames is a ValueError.

Positions are computed in integers. `np.linspace(...).astype(int)`, which much published code uses for the same thing,
multiplies a rounded step and so lands one frame too early for some lengths (never where the number of steps is a power
of two, as in `endpoint=False` with 8 or 16 frames).
"""

import numpy as np


def uniform_indices(video, num_frames: int, endpoint: bool = False) -> np.ndarray:
    """`num_frames` indices spread evenly over a video of n frames, rounded down.

    Args:
        video: number of frames, or metadata with `total_num_frames`.
        num_frames: how many; where the video has fewer, indices repeat.
        endpoint: False takes the first frame of each of `num_frames` equal parts, `i * n // num_frames` (the default
            in transformers, and VideoPrism). True spans the first to the last frame, `i * (n - 1) // (num_frames - 1)`
            (PE Video); one frame is then the first.

    Returns:
        int64 of shape (num_frames,).
    """
    total = _total_num_frames(video)
    _check_positive("num_frames", num_frames)
    steps = np.arange(num_frames, dtype=np.int64)
    if not endpoint:
        return steps * total // num_frames
    return steps * (total - 1) // max(num_frames - 1, 1)


def fps_indices(video, fps: float, video_fps: float | None = None) -> np.ndarray:
    """Indices at `fps` frames per second, spread evenly over the video, as in transformers.

    Args:
        video: number of frames, or metadata with `total_num_frames` and `fps`.
        fps: wanted rate in frames per second; at most the video's own, or it is a ValueError.
        video_fps: the video's rate in frames per second, where `video` is a number.

    Returns:
        int64 of shape (max(1, floor(duration_seconds * fps)),): a video shorter than one step gives its first frame.
    """
    total = _total_num_frames(video)
    video_fps = video_fps if video_fps is not None else getattr(video, "fps", None)
    if video_fps is None:
        raise ValueError(
            f"Sampling at fps={fps} needs the video's own rate, which is unknown. Pass metadata with `fps`, or "
            "choose a number of frames instead."
        )
    _check_positive("fps", fps)
    _check_positive("the video's fps", video_fps)
    num_frames = max(1, int(total / video_fps * fps))
    if num_frames > total:
        raise ValueError(
            f"Expected fps of at most the video's own {video_fps:g}, got {fps:g}: it would repeat frames. Pass a "
            "lower fps, or choose a number of frames instead."
        )
    return uniform_indices(total, num_frames)


def contiguous_indices(video, num_frames: int, stride: int = 1, start: int = 0) -> np.ndarray:
    """`num_frames` indices from `start`, each `stride` after the one before.

    Indices past the end become the last frame, so that a short video's clip ends in its last frame, repeated.

    Args:
        video: number of frames, or metadata with `total_num_frames`.
        num_frames, stride: at least 1.
        start: first index, from 0 to the last frame.

    Returns:
        int64 of shape (num_frames,).
    """
    total = _total_num_frames(video)
    _check_positive("num_frames", num_frames)
    _check_positive("stride", stride)
    if not 0 <= start < total:
        raise ValueError(f"Expected start from 0 to {total - 1} for a video of {total} frames, got {start}.")
    return np.minimum(start + stride * np.arange(num_frames, dtype=np.int64), total - 1)


def all_indices(video) -> np.ndarray:
    """Every index of the video, int64 of shape (total_num_frames,).

    Args:
        video: number of frames, or metadata with `total_num_frames`.
    """
    return np.arange(_total_num_frames(video), dtype=np.int64)


def _total_num_frames(video) -> int:
    total = getattr(video, "total_num_frames", video)
    if isinstance(total, bool) or not isinstance(total, (int, np.integer)):
        raise TypeError(f"Expected a number of frames, or metadata with `total_num_frames`, got {video!r}.")
    if total < 1:
        raise ValueError(f"Cannot choose frames of a video that has {total}. Check that it was decoded.")
    return int(total)


def _check_positive(name: str, value) -> None:
    if not value > 0:
        raise ValueError(f"Expected {name} above 0, got {value}.")
