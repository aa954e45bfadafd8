"""What is known of a video before its frames are decoded."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from transformers.video_utils import VideoMetadata

from .source import VideoDecodeError


class VideoFileMetadata(VideoMetadata):
    """Metadata of a file, with the times that the file itself gives.

    `fps` in frames per second and `duration` in seconds are measured over all frames; `timestamps` are the file's own
    times of the chosen frames, which an uneven rate keeps apart from their number over `fps`.

    Attributes:
        frame_seconds: float64 (frames,), when each frame is shown, ascending; `None` where the file doesn't say.
    """

    frame_seconds: np.ndarray | None = None

    @property
    def timestamps(self) -> list[float]:
        """Seconds at which the chosen frames are shown."""
        if self.frame_seconds is None or self.frames_indices is None:
            return super().timestamps
        return self.frame_seconds[self.frames_indices].tolist()

    def choosing(self, frame_indices: list[int] | None) -> "VideoFileMetadata":
        """The same video with frames chosen.

        Args:
            frame_indices: their numbers; `None` for no choice.
        """
        chosen = type(self)(**{**self, "frames_indices": frame_indices})
        chosen.frame_seconds = self.frame_seconds
        return chosen

    def seconds_of(self, frame_indices: np.ndarray) -> np.ndarray:
        """When frames are shown, in seconds: the file's times, or their number over `fps` where it has none.

        Args:
            frame_indices: integers (frames,).

        Returns:
            float64 (frames,).

        Raises:
            ValueError: neither the times nor the rate is known.
        """
        if self.frame_seconds is not None:
            return self.frame_seconds[frame_indices]
        if self.fps is None:
            raise ValueError("This video tells neither the times of its frames nor its rate: choose frames by number.")
        return np.asarray(frame_indices) / self.fps


Sample = Sequence[int] | Callable[[VideoFileMetadata], Iterable[int]] | None
"""Frame numbers, a function from the metadata to them, or `None` for all frames."""


def checked_indices(sample: Sample, metadata: VideoFileMetadata, name: str) -> list[int]:
    """The frame numbers that a sample stands for, as [`~vidformers.video.VideoReader.frame_indices`]."""
    total = metadata.total_num_frames
    if sample is None:
        return list(range(total))
    chosen = np.asarray(_called(sample, metadata, name) if callable(sample) else sample)
    if chosen.ndim != 1 or (chosen.size and not np.issubdtype(chosen.dtype, np.integer)):
        raise ValueError(
            f"Expected frame indices as a flat sequence of integers, got shape {chosen.shape} of {chosen.dtype}."
        )
    outside = chosen[(chosen < 0) | (chosen >= total)]
    if outside.size:
        raise IndexError(
            f"{name} has {total} frames: expected indices from 0 to {total - 1}, got {int(outside[0])}. Choose them "
            "from the metadata's total_num_frames by passing a function as `sample`."
        )
    return [int(index) for index in chosen]


def _called(sample: Callable, metadata: VideoFileMetadata, name: str) -> Sequence[int]:
    try:
        return sample(metadata.choosing(None))
    except ValueError as error:
        cause = f"its frames cannot be chosen ({str(error).rstrip('.')})"
        raise VideoDecodeError(name, cause, "Choose them otherwise, or leave the video out.") from error
