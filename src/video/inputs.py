"""What a video processor is given, told apart: files, decoders, frames in memory, pictures, and lists of them."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers.image_utils import ChannelDimension, load_image


_ACCEPTED = (
    "a path, URL, bytes or file object of a video; frames as an array or tensor (frames, height, width, channels) or "
    "(frames, channels, height, width), or as a list of images; or a list of such videos"
)


def _is_pil(item) -> bool:
    return hasattr(item, "convert") and hasattr(item, "mode") and hasattr(item, "getbands")


def _is_array(item) -> bool:
    return isinstance(item, (np.ndarray, torch.Tensor))


def is_decoder(item) -> bool:
    """Whether this is a `torchcodec.decoders.VideoDecoder`."""
    return hasattr(item, "get_frames_at")


def is_file(item) -> bool:
    """Whether this is something to decode: a path, an address, bytes or a file object."""
    return isinstance(item, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(item, "read")


def unwrapped(item):
    """The video in what other packages wrap it in.

    A row of `datasets` is a dict of path and bytes, and a column of it a sequence that loads its rows when they are
    asked for; torchcodec gives a `FrameBatch` of frames and times.
    """
    if isinstance(item, Mapping) and item and set(item) <= {"path", "bytes"}:
        return item["path"] if item.get("bytes") is None else item["bytes"]
    if hasattr(item, "pts_seconds") and hasattr(item, "data"):
        return item.data
    is_column = isinstance(item, Sequence) and not isinstance(item, (list, tuple, str, bytes, bytearray, memoryview))
    return list(item) if is_column else item


def are_files(videos) -> bool:
    """Whether this is a video file or a decoder of one, or (nested) lists of nothing else."""
    videos = unwrapped(videos)
    if isinstance(videos, (list, tuple)):
        return bool(videos) and _depth_of_names(videos) < 3 and all(are_files(item) for item in videos)
    return is_file(videos) or is_decoder(videos)


def list_videos(videos) -> list[Any]:
    """Flatten nested input to videos: files, decoders, or arrays of four dimensions."""
    videos = unwrapped(videos)
    if _is_pil(videos):
        return [_stack_images([videos])]
    if _is_array(videos):
        if videos.ndim == 5:
            return list(videos)
        if videos.ndim not in (3, 4):
            raise ValueError(f"Expected a video of 4 dimensions, a batch of 5 or an image of 3, got {_shape(videos)}.")
        return [videos if videos.ndim == 4 else videos[None]]
    if is_decoder(videos) or is_file(videos):
        return [videos]
    if not isinstance(videos, (list, tuple)):
        raise TypeError(f"Expected {_ACCEPTED}; got {type(videos).__name__}.")
    if not videos:
        raise ValueError(f"Expected {_ACCEPTED}; got an empty list.")
    if _depth_of_names(videos) == 3:  # batch, video, paths of its frames
        return [_stack_images([load_image(path) for path in paths]) for batch in videos for paths in batch]
    if all(_is_pil(item) or (_is_array(item) and item.ndim <= 3) for item in videos):
        return [_stack_images(videos)]
    return [video for item in videos for video in list_videos(item)]


def _depth_of_names(item, depth: int = 0) -> int:
    """How many lists deep the first string lies; 0 where there is none."""
    if isinstance(item, str):
        return depth
    return _depth_of_names(item[0], depth + 1) if isinstance(item, (list, tuple)) and item else 0


def _stack_images(images) -> np.ndarray | torch.Tensor:
    """Frames as one array of four dimensions."""
    frames = [_pil_to_array(image) if _is_pil(image) else image for image in images]
    shapes = sorted({tuple(frame.shape) for frame in frames})
    if len(shapes) > 1 or len(shapes[0]) != 3:
        raise ValueError(
            f"Expected the frames of a video to have 3 dimensions and one size, got {shapes}. To pass several images "
            "as videos of one frame each, nest them: [[image], [image]]."
        )
    if isinstance(frames[0], torch.Tensor):
        return torch.stack([torch.as_tensor(frame) for frame in frames])
    return np.stack([np.asarray(frame) for frame in frames])


def _pil_to_array(image) -> np.ndarray:
    """(height, width, 1, 3 or 4) uint8; palettes and other colour spaces become RGB or RGBA."""
    if image.mode in ("F", "I") or image.mode.startswith("I;"):
        raise ValueError(f"Expected images of 8 bits a channel, got mode {image.mode}: scale it to 0…255 first.")
    target = {"1": "L", "LA": "RGBA", "PA": "RGBA", "L": "L", "RGBA": "RGBA"}.get(image.mode, "RGB")
    if image.mode == "P" and "transparency" in image.info:
        target = "RGBA"
    array = np.asarray(image if image.mode == target else image.convert(target))
    return array[..., None] if array.ndim == 2 else array


def to_tensor(video: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Without a copy where torch can share the memory."""
    if isinstance(video, torch.Tensor):
        return video
    if video.dtype.kind not in "buif":
        raise ValueError(f"Expected a video of numbers, got an array of {video.dtype}.")
    if video.dtype in (np.uint16, np.uint32, np.uint64):
        video = video.astype(np.int64)
    if video.dtype == bool:
        video = video.astype(np.uint8)
    video = video.astype(video.dtype.newbyteorder("="), copy=False)
    shareable = video.flags.writeable and all(stride >= 0 for stride in video.strides)
    return torch.from_numpy(video if shareable else video.copy())


def channels_first(video: torch.Tensor, input_data_format: str | None) -> torch.Tensor:
    """View (frames, channels, height, width); the axis of 3 is taken for the channels, else that of 1 or 4."""
    if video.ndim != 4:
        raise ValueError(f"Expected a video of 4 dimensions, got {_shape(video)}.")
    if input_data_format is None:
        axes = [axis for counts in ((3,), (1, 4)) for axis in (1, 3) if video.shape[axis] in counts]
        if not axes:
            raise ValueError(
                f"Expected a video with 1, 3 or 4 channels on its second or last axis, got {_shape(video)}. Pass "
                'input_data_format="channels_first" or "channels_last" if it has another number.'
            )
        return video if axes[0] == 1 else video.permute(0, 3, 1, 2)
    return video.permute(0, 3, 1, 2) if ChannelDimension(input_data_format) == ChannelDimension.LAST else video


def _shape(video) -> str:
    return f"shape {tuple(video.shape)}"
