"""Which frames V-JEPA 2 trains and evaluates on: clips out of equal parts of a video, and what precedes an action.

Source: facebookresearch/vjepa2 at c2963a47, `src/datasets/video_dataset.py` and
`evals/action_anticipation_frozen/epickitchens.py`. Numbers are rounded as there, to take the same frames.
"""

import math
import random as python_random

import numpy as np
from transformers.video_utils import VideoMetadata

from .sample import check_positive, generator_of, total_num_frames


def clip_indices(
    video: int | VideoMetadata,
    num_frames: int,
    num_clips: int = 1,
    *,
    frame_step: int | None = None,
    fps: float | None = None,
    duration: float | None = None,
    video_fps: float | None = None,
    allow_overlap: bool = False,
    random: bool = True,
    seed: int | np.random.RandomState | None = None,
) -> np.ndarray:
    """A clip out of each of `num_clips` equal parts of a video; frames are about a step apart.

    The step is given in one of three ways. Frames spread over the whole of a clip, so that they are a little more than
    a step apart. In parts that are shorter than a clip, the last frame is repeated; or clips overlap.

    Args:
        video: number of frames, or metadata with `total_num_frames` and `fps`.
        num_frames: frames of a clip.
        num_clips: number of clips.
        frame_step: the step in frames.
        fps: frames per second, at most the video's rate, which is rounded up before.
        duration: seconds of a clip.
        video_fps: the video's rate, where `video` is a number.
        allow_overlap: where parts are shorter than a clip, let clips reach into other parts.
        random: draw the place of a clip in its part; else it is at the beginning.
        seed: a number, for the clips that the original draws after `numpy.random.seed` of it; or a generator to go on
            with. By default torch's global generator decides.

    Returns:
        int64 of shape (num_clips, num_frames).

    Raises:
        ValueError: none or several of the three ways, or a step below one frame.
    """
    total = total_num_frames(video)
    for name, value in (("num_frames", num_frames), ("num_clips", num_clips)):
        check_positive(name, value)
    step = _step(video, num_frames, frame_step, fps, duration, video_fps)
    length, part = num_frames * step, total // num_clips
    if part > length:
        generator = generator_of(seed)
        ends = [generator.randint(length, part) if random else length for _ in range(num_clips)]
        return np.stack([_window(end - length, end, num_frames) + i * part for i, end in enumerate(ends)])
    if allow_overlap:
        frames = _cut_short(min(length, total) - 1, num_frames, step)
        offset = (total - length) // (num_clips - 1) if total > length else 0
    else:
        frames, offset = _cut_short(part, num_frames, step), part
    return frames + offset * np.arange(num_clips)[:, None]


def anticipation_indices(
    video: int | VideoMetadata,
    num_frames: int,
    fps: float,
    *,
    start: int,
    stop: int,
    anticipation_time: tuple[float, float] = (1.0, 1.0),
    anticipation_point: tuple[float, float] = (0.0, 0.0),
    video_fps: float | None = None,
    seed: int | python_random.Random | None = None,
) -> tuple[np.ndarray, float]:
    """The frames that end some time before a point of an action.

    Args:
        video: number of frames, or metadata with `total_num_frames` and `fps`.
        num_frames: how many.
        fps: frames per second, at most the video's rate.
        start: the action's first frame.
        stop: its last frame.
        anticipation_time: least and greatest number of seconds before the point, of which one is drawn.
        anticipation_point: least and greatest place of the point, likewise: 0 is the last frame of the action, 1 the
            first one.
        video_fps: the video's rate, where `video` is a number.
        seed: a number, or a generator to go on with. By default Python's global generator draws.

    Returns:
        int64 of shape (num_frames,), and the seconds. Before the video begins, its first frame is repeated.

    Raises:
        ValueError: a video slower than `fps`.
    """
    total, rate = total_num_frames(video), _rate(video, video_fps, "fps")
    for name, value in (("num_frames", num_frames), ("fps", fps)):
        check_positive(name, value)
    step = int(rate / fps)
    if step < 1:
        raise ValueError(f"Expected `fps` of at most the video's {rate:g}, got {fps:g}.")
    generator = seed if isinstance(seed, python_random.Random) else python_random
    generator = python_random.Random(seed) if isinstance(seed, int) else generator
    seconds, point = generator.uniform(*anticipation_time), generator.uniform(*anticipation_point)
    end = int(start * point + (1 - point) * stop - int(seconds * rate))
    frames = end - step * np.arange(num_frames, 0, -1, dtype=np.int64)
    return frames.clip(0, total - 1), seconds


def _step(
    video: int | VideoMetadata,
    num_frames: int,
    frame_step: int | None,
    fps: float | None,
    duration: float | None,
    video_fps: float | None,
) -> int:
    """Frames from one to the next."""
    given = {"frame_step": frame_step, "fps": fps, "duration": duration}
    if sum(value is not None for value in given.values()) != 1:
        raise ValueError(f"Give exactly one of `frame_step`, `fps` and `duration`, got {given}.")
    ((name, value),) = ((name, value) for name, value in given.items() if value is not None)
    check_positive(name, value)
    if name == "frame_step":
        step = int(value)
    else:
        rate = math.ceil(_rate(video, video_fps, name))
        step = int(rate // value) if name == "fps" else int(value * rate / num_frames)
    if step < 1:
        raise ValueError(
            f"`{name}`={value:g} asks for more frames than the video has in that time: choose "
            f"{'a lower rate' if name == 'fps' else 'a larger value'} or fewer frames."
        )
    return step


def _rate(video: int | VideoMetadata, video_fps: float | None, name: str) -> float:
    rate = video_fps if video_fps is not None else getattr(video, "fps", None)
    if rate is None:
        raise ValueError(f"`{name}` needs the video's own rate: pass metadata that has it, or `video_fps`.")
    check_positive("the video's fps", rate)
    return rate


def _window(start: int, end: int, num_frames: int) -> np.ndarray:
    """Frames spread from `start` to the one before `end`."""
    return np.linspace(start, end, num_frames).clip(start, end - 1).astype(np.int64)


def _cut_short(length: int, num_frames: int, step: int) -> np.ndarray:
    """Frames spread over fewer than a clip has, the last one repeated."""
    count = length // step
    frames = np.concatenate([np.linspace(0, length, count), np.full(num_frames - count, float(length))])
    return frames.clip(0, max(length - 1, 0)).astype(np.int64)
