"""From a video to frames, in one call."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from .metadata import Sample, VideoFileMetadata
from .reader import VideoReader
from .sample import seconds_indices
from .source import VideoLimits
from .torchcodec import decode_with_torchcodec


def decode_video(
    source: Any,
    sample: Sample = None,
    *,
    seconds: Sequence[float] | slice | None = None,
    backend: str = "pyav",
    limits: VideoLimits | None = None,
) -> tuple[np.ndarray, VideoFileMetadata]:
    """Decode chosen frames of a video.

    Args:
        source: path, `os.PathLike`, http(s) URL, `bytes`, or a binary file object (read from its beginning). Nothing
            else is read: playlists and lists of files are refused.
        sample: frame numbers in any order, repeats allowed; or a function from the metadata to such numbers
            (`functools.partial(vidformers.video.uniform_indices, num_frames=16)`); or None for all.
        seconds: in the place of `sample`, times on the file's own clock: a sequence takes the frame that is shown at
            each; `slice(10, 20)` all frames shown from second 10 to before second 20, `slice(10, 20, 0.5)` those shown
            at 10, 10.5 … 19.5.
        backend: "pyav", or "torchcodec" (exact seek mode; the package must be installed and loadable).
        limits: what is too large.

    Returns:
        frames, uint8 RGB of shape (num_frames, height, width, 3), turned and mirrored as the file says; and the
        metadata, with `width` and `height` of the returned frames, `frames_indices`, their numbers, and `timestamps`,
        the file's times of them in seconds.

    Raises:
        VideoDecodeError: the source is missing, empty, damaged, too large, or without frames.
        IndexError: a number or a time lies outside the video.
        ValueError: both `sample` and `seconds`, or an unknown backend.
        ImportError: the backend is not usable here.
    """
    if seconds is not None:
        if sample is not None:
            raise ValueError("Expected `sample` or `seconds`, got both.")
        sample = partial(seconds_indices, seconds=seconds)
    if backend == "torchcodec":
        return decode_with_torchcodec(source, sample, limits)
    if backend != "pyav":
        raise ValueError(f'Expected backend "pyav" or "torchcodec", got {backend!r}.')
    return VideoReader(source, limits).read(sample)


def probe_video(source: Any, limits: VideoLimits | None = None) -> VideoFileMetadata:
    """Metadata of a video (`frames_indices` is None), for the cost of reading its packets and decoding one frame.

    Args:
        source: as for [`decode_video`], which raises the same errors.
        limits: what is too large.
    """
    return VideoReader(source, limits).metadata
