"""Frames by torchcodec, where it is installed and can be loaded."""

from typing import Any

import numpy as np

from .metadata import Sample, VideoFileMetadata, checked_indices
from .source import VideoDecodeError, VideoLimits, VideoSource, video_stream


def decode_with_torchcodec(
    source: Any, sample: Sample, limits: VideoLimits | None
) -> tuple[np.ndarray, VideoFileMetadata]:
    """Decode chosen frames as [`~vidformers.decode_video`] does, with `backend="torchcodec"`."""
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, RuntimeError, OSError) as error:
        raise ImportError(
            'backend="torchcodec" needs the package torchcodec in a version made for this torch, and FFmpeg\'s shared '
            f'libraries; loading it failed: {_first_line(error)}. Install them, or use backend="pyav".'
        ) from error
    opened = VideoSource(source, limits)
    with opened.open() as container:  # torchcodec follows whatever FFmpeg follows: refuse that before
        video_stream(opened, container, thread_type="AUTO")
    if hasattr(opened.target, "seek"):
        opened.target.seek(0)
    try:
        decoder = VideoDecoder(opened.target, seek_mode="exact", dimension_order="NHWC", num_ffmpeg_threads=0)
    except (RuntimeError, ValueError) as error:
        raise VideoDecodeError(opened.name, _first_line(error)) from error
    return read_torchcodec(decoder, sample, opened.name)


def read_torchcodec(
    decoder: Any, sample: Sample = None, name: str = "<VideoDecoder>"
) -> tuple[np.ndarray, VideoFileMetadata]:
    """Frames and metadata, as [`~vidformers.decode_video`] returns them, from a decoder of torchcodec at hand."""
    header = decoder.metadata
    metadata = VideoFileMetadata(
        total_num_frames=len(decoder),
        fps=header.average_fps,
        width=header.width,
        height=header.height,
        duration=header.duration_seconds,
        video_backend="torchcodec",
    )
    indices = checked_indices(sample, metadata, name)
    if not indices:
        return np.empty((0, header.height, header.width, 3), dtype=np.uint8), metadata.choosing([])
    try:
        batch = decoder.get_frames_at(indices=indices)
    except RuntimeError as error:
        raise VideoDecodeError(name, _first_line(error)) from error
    frames = batch.data
    if frames.shape[-1] != 3:  # the decoder was made with channels first
        frames = frames.permute(0, 2, 3, 1)
    frames = frames.cpu().numpy()
    metadata = metadata.choosing(indices)
    metadata.height, metadata.width = frames.shape[1], frames.shape[2]
    return frames, metadata


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
