"""Features for temporal action detection: one vector for each window of a video, as VideoMAE V2 publishes them."""

from collections.abc import Iterator

import numpy as np
import torch
from transformers import PreTrainedModel

from .modeling_videomae import VideoMAEForVideoClassification, VideoMAEModel
from .video_processing_videomae import VideoMAEVideoProcessor


WINDOWS_AT_ONCE = 8
"""Windows that a model gets in one call."""


@torch.no_grad()
def detection_features(
    model: VideoMAEForVideoClassification | VideoMAEModel,
    frames: np.ndarray | torch.Tensor,
    num_frames: int = 16,
    stride: int = 4,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a classifier reads of each window of consecutive frames, before its head.

    The pixels are those of [`VideoMAEVideoProcessor.for_detection`]. The original takes windows of 16 frames at the
    file's own rate, every 4 frames for THUMOS14 and every 16 for FineAction, and saves the features of a video as an
    array: `np.save(path, features.numpy())`.

    Args:
        model: a classifier, or an encoder with a pooled output (`config.use_pooler`).
        frames: uint8 (T, H, W, 3), all frames of a video.
        num_frames: frames of a window.
        stride: frames from one window's start to the next one's. Frames that fill no window are left out.

    Returns:
        The features (windows, D), float32 on the CPU, and the numbers of the windows' first frames (windows,), int64.

    Raises:
        ValueError: fewer frames than a window has, frames of another shape, or a model without pooled output.

    Source: OpenGVLab/VideoMAEv2 at 29eab1e8, `extract_tad_feature.py`.
    """
    frames = torch.as_tensor(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != torch.uint8:
        raise ValueError(f"Expected uint8 frames (T, H, W, 3), got {frames.dtype} {tuple(frames.shape)}.")
    if len(frames) < num_frames or min(num_frames, stride) < 1:
        raise ValueError(
            f"A window takes {num_frames} frames, every {stride}; the video has {len(frames)}. Repeat frames of "
            "shorter videos before, if they are to have features."
        )
    starts = torch.arange(0, len(frames) - num_frames + 1, stride)
    interpolate = not model.config.use_input_positions
    features = [
        _pooled(model, windows.to(model.device, model.dtype), interpolate)
        for windows in _windows(model, frames, starts, num_frames)
    ]
    return torch.cat(features).float().cpu(), starts


def _windows(
    model: PreTrainedModel, frames: torch.Tensor, starts: torch.Tensor, length: int
) -> Iterator[torch.Tensor]:
    """Pixels of a few windows after the others, (windows, T, C, S, S); every frame is prepared once."""
    processor = VideoMAEVideoProcessor.for_detection(model.config.image_height_width)
    first, ready = 0, torch.empty(0)
    for group in starts.split(WINDOWS_AT_ONCE):
        start, stop = int(group[0]), int(group[-1]) + length
        ready, first = ready[start - first :], start
        fresh = frames[start + len(ready) : stop].permute(0, 3, 1, 2)
        pixels = processor(fresh, return_tensors="pt", input_data_format="channels_first")["pixel_values"][0]
        ready = torch.cat([ready, pixels]) if len(ready) else pixels
        yield torch.stack([ready[each - start : each - start + length] for each in group.tolist()])


def _pooled(
    model: VideoMAEForVideoClassification | VideoMAEModel, windows: torch.Tensor, interpolate: bool
) -> torch.Tensor:
    """(windows, D), of the encoder as the model pools it."""
    if isinstance(model, VideoMAEForVideoClassification):
        encoded = model.videomae(windows, interpolate_pos_encoding=interpolate, return_dict=True)
        return model.pool(encoded.last_hidden_state)
    pooled = model(windows, interpolate_pos_encoding=interpolate, return_dict=True).pooler_output
    if pooled is None:
        raise ValueError(f"{type(model).__name__} has no pooled output without `config.use_pooler`.")
    return pooled


__all__ = ["detection_features"]
