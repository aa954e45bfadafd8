"""Which frames to take: pure functions from a video's length to frame indices, int64 and never decreasing.

Every function takes the number of frames, or the metadata that holds it, so that `functools.partial(uniform_indices,
num_frames=16)` is a `sample` for [`~vidformers.video.decode_video`]. A video of one frame gives that frame; a video
shorter than asked is described at each function; a video without frames is a ValueError.

Positions are computed in integers. `np.linspace(...).astype(int)`, which much published code uses for the same thing,
multiplies a rounded step and so lands one frame too early for some lengths (never where the number of steps is a power
of two, as in `endpoint=False` with 8 or 16 frames).
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from transformers.video_utils import VideoMetadata


TICK = 1e-6
"""Seconds by which times that were rounded may miss: a frame counts as shown this much before its time."""


def uniform_indices(video: int | VideoMetadata, num_frames: int, endpoint: bool = False) -> np.ndarray:
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
    total = total_num_frames(video)
    check_positive("num_frames", num_frames)
    steps = np.arange(num_frames, dtype=np.int64)
    if not endpoint:
        return steps * total // num_frames
    return steps * (total - 1) // max(num_frames - 1, 1)


def fps_indices(
    video: int | VideoMetadata, fps: float, video_fps: float | None = None, by: str = "number"
) -> np.ndarray:
    """Indices at `fps` frames per second.

    Args:
        video: number of frames, or metadata with `total_num_frames` and `fps`.
        fps: wanted rate in frames per second. By number it is at most the video's own, or it is a ValueError.
        video_fps: the video's rate in frames per second, where `video` is a number.
        by: "number" spreads the indices evenly over the frames, as in transformers, whatever their times. "time" takes
            the frame that is shown at each tick, `1 / fps` seconds apart from the first frame's time on, by the times
            of the file; frames repeat where the file is slower.

    Returns:
        int64 of shape (max(1, floor(duration_seconds * fps)),): a video shorter than one step gives its first frame.
    """
    if by not in ("number", "time"):
        raise ValueError(f'Expected by="number" or "time", got {by!r}.')
    total = total_num_frames(video)
    if by == "time":
        check_positive("fps", fps)
        times = frame_seconds_of(video, video_fps)
        ticks = np.arange(max(1, int(duration_of(video, times) * fps + 1e-9))) / fps
        return shown_at(times, times[0] + ticks)
    video_fps = video_fps if video_fps is not None else getattr(video, "fps", None)
    if video_fps is None:
        raise ValueError(
            f"Sampling at fps={fps} needs the video's own rate, which is unknown. Pass metadata with `fps`, or "
            "choose a number of frames instead."
        )
    check_positive("fps", fps)
    check_positive("the video's fps", video_fps)
    num_frames = max(1, int(total / video_fps * fps))
    if num_frames > total:
        raise ValueError(
            f"Expected fps of at most the video's own {video_fps:g}, got {fps:g}: it would repeat frames. Pass a "
            "lower fps, or choose a number of frames instead."
        )
    return uniform_indices(total, num_frames)


def contiguous_indices(video: int | VideoMetadata, num_frames: int, stride: int = 1, start: int = 0) -> np.ndarray:
    """`num_frames` indices from `start`, each `stride` after the one before.

    Indices past the end become the last frame, so that a short video's clip ends in its last frame, repeated.

    Args:
        video: number of frames, or metadata with `total_num_frames`.
        num_frames, stride: at least 1.
        start: first index, from 0 to the last frame.

    Returns:
        int64 of shape (num_frames,).
    """
    total = total_num_frames(video)
    check_positive("num_frames", num_frames)
    check_positive("stride", stride)
    if not 0 <= start < total:
        raise ValueError(f"Expected start from 0 to {total - 1} for a video of {total} frames, got {start}.")
    return np.minimum(start + stride * np.arange(num_frames, dtype=np.int64), total - 1)


def seconds_indices(video: int | VideoMetadata, seconds: Sequence[float] | slice) -> np.ndarray:
    """Indices of the frames that are shown at given times of the file's own clock.

    Args:
        video: metadata of a file.
        seconds: times in any order; or `slice(start, stop)` for all frames that are shown within it, or `slice(start,
            stop, step)` for those shown every `step` seconds. A slice may leave its ends open.

    Returns:
        int64 of shape (times,), or of the frames within the slice.

    Raises:
        IndexError: a time before the first frame, or after the last one has ended.
        ValueError: a slice that holds no time.
    """
    times = frame_seconds_of(video, None)
    first, end = times[0], times[0] + duration_of(video, times)
    if isinstance(seconds, slice):
        start = first if seconds.start is None else seconds.start
        stop = end if seconds.stop is None else seconds.stop
        if not start < stop or (seconds.step is not None and not seconds.step > 0):
            raise ValueError(f"Expected a slice of seconds with start < stop and a step above 0, got {seconds}.")
        if seconds.step is None:
            _check_times(np.array([start]), first, end)
            return np.arange(shown_at(times, np.array([start]))[0], np.searchsorted(times, stop - TICK))
        seconds = start + seconds.step * np.arange(int(np.ceil((stop - start) / seconds.step - 1e-9)))
    wanted = np.asarray(seconds, dtype=np.float64)
    if wanted.ndim != 1 or not np.isfinite(wanted).all():
        raise ValueError(f"Expected seconds as a flat sequence of finite numbers or a slice, got {seconds!r}.")
    _check_times(wanted, first, end)
    return shown_at(times, wanted)


def spread_clip_indices(
    video: int | VideoMetadata, num_frames: int, stride: int = 1, num_clips: int = 1
) -> np.ndarray:
    """Several clips of consecutive frames, `stride` apart, whose starts are spread evenly over the video.

    One clip lies in the middle; several reach from the first frame to the last. Indices past the end become the last
    frame.

    Args:
        video: number of frames, or metadata with `total_num_frames`.
        num_frames, stride, num_clips: at least 1.

    Returns:
        int64 of shape (num_clips, num_frames).
    """
    total = total_num_frames(video)
    for name, value in (("num_frames", num_frames), ("stride", stride), ("num_clips", num_clips)):
        check_positive(name, value)
    last_start = max(total - ((num_frames - 1) * stride + 1), 0)
    starts = np.array([last_start // 2])
    if num_clips > 1:
        starts = np.arange(num_clips, dtype=np.int64) * last_start // (num_clips - 1)
    return np.stack([contiguous_indices(total, num_frames, stride, int(start)) for start in starts])


def all_indices(video: int | VideoMetadata) -> np.ndarray:
    """Every index of the video, int64 of shape (total_num_frames,).

    Args:
        video: number of frames, or metadata with `total_num_frames`.
    """
    return np.arange(total_num_frames(video), dtype=np.int64)


def middle_indices(video: int | VideoMetadata, num_frames: int) -> np.ndarray:
    """`num_frames` consecutive indices from the middle of the video, int64 of shape (num_frames,).

    Args:
        video: number of frames, or metadata with `total_num_frames`.
        num_frames: at least 1. The last frame repeats where the video has fewer.
    """
    return spread_clip_indices(video, num_frames)[0]


SAMPLERS: dict[str, tuple[Callable[..., np.ndarray], str | None]] = {
    "uniform": (uniform_indices, "num_frames"),
    "uniform_to_end": (partial(uniform_indices, endpoint=True), "num_frames"),
    "fps": (fps_indices, "fps"),
    "fps_by_time": (partial(fps_indices, by="time"), "fps"),
    "contiguous": (contiguous_indices, "num_frames"),
    "middle": (middle_indices, "num_frames"),
    "all": (all_indices, None),
}
"""Ways to choose frames by name: the function, and the number that it needs."""


def named_sampler(name: str, num_frames: int | None = None, fps: float | None = None) -> Callable[..., np.ndarray]:
    """A function from the number of frames, or the metadata, to indices.

    Args:
        name: one of `SAMPLERS`.
        num_frames, fps: the number that this one needs; the other is not looked at.

    Raises:
        ValueError: an unknown name, or the number is lacking.
    """
    if name not in SAMPLERS:
        raise ValueError(f"Expected sampling to be one of {', '.join(SAMPLERS)}, got {name!r}.")
    function, needed = SAMPLERS[name]
    if needed is None:
        return function
    value = {"num_frames": num_frames, "fps": fps}[needed]
    if value is None:
        raise ValueError(f'sampling="{name}" needs {needed}. Pass it in the call, or store it in the processor.')
    return partial(function, **{needed: value})


def total_num_frames(video: int | VideoMetadata) -> int:
    """The number of frames of a video, that it is or that its metadata holds; an error where that is none."""
    total = getattr(video, "total_num_frames", video)
    if isinstance(total, bool) or not isinstance(total, (int, np.integer)):
        raise TypeError(f"Expected a number of frames, or metadata with `total_num_frames`, got {video!r}.")
    if total < 1:
        raise ValueError(f"Cannot choose frames of a video that has {total}. Check that it was decoded.")
    return int(total)


def generator_of(seed: int | np.random.RandomState | None) -> np.random.RandomState:
    """The generator that a seed is, or begins; without one it follows torch's global generator."""
    if seed is None:
        seed = int(torch.randint(2**32, ()))
    return seed if isinstance(seed, np.random.RandomState) else np.random.RandomState(seed)


def check_positive(name: str, value: float) -> None:
    """A ValueError unless a number is above 0."""
    if not value > 0:
        raise ValueError(f"Expected {name} above 0, got {value}.")


def frame_seconds_of(video, video_fps: float | None) -> np.ndarray:
    """(frames,) when each frame is shown: the file's times, or numbers over the rate."""
    times = getattr(video, "frame_seconds", None)
    if times is not None:
        return times
    rate = video_fps if video_fps is not None else getattr(video, "fps", None)
    if rate is None:
        raise ValueError("Choosing frames by time needs their times or the video's rate. Pass metadata that has them.")
    check_positive("the video's fps", rate)
    return np.arange(total_num_frames(video)) / rate


def duration_of(video, times: np.ndarray) -> float:
    """Seconds from the first frame's time to the last one's end, which is guessed where nothing tells."""
    duration = getattr(video, "duration", None)
    if duration is None:
        duration = times[-1] - times[0] + (np.median(np.diff(times)) if len(times) > 1 else 0.0)
    return float(duration)


def shown_at(times: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The last frame whose time has come, for each wanted time."""
    return np.maximum(np.searchsorted(times, wanted + TICK, side="right") - 1, 0).astype(np.int64)


def _check_times(wanted: np.ndarray, first: float, end: float) -> None:
    outside = wanted[(wanted < first - TICK) | (wanted >= end)]
    if outside.size:
        raise IndexError(
            f"The video shows frames from {first:.3f} to {end:.3f} seconds; expected times within, got {outside[0]:g}."
        )
