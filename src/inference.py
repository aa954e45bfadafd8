"""What the commands that run models on video files share: loading a model, and how it wants its frames."""

import inspect
import os

import numpy as np
import torch
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging
from transformers.video_utils import VideoMetadata

from .video.decode import decode_video


DEFAULT_FRAMES = 8
"""Frames to take of a video where neither processor nor configuration names a number, as for most PE checkpoints."""


def load_model(directory: str | os.PathLike, config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """The base model of a directory, in evaluation mode, of a classifier the encoder alone.

    Raises:
        ValueError: the directory lacks weights of the model.
    """
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # what the base model has no use for is left unread on purpose
    try:
        model, found = AutoModel.from_pretrained(directory, config=config, dtype=dtype, output_loading_info=True)
    finally:
        logging.set_verbosity(verbosity)
    if found["missing_keys"]:
        raise ValueError(f"{directory}: lacks the weights {', '.join(sorted(found['missing_keys']))}.")
    return model.eval()


def frames_of_a_clip(processor, config: PreTrainedConfig) -> int:
    """How many frames a checkpoint is meant for: what its configuration says, or else its video processor."""
    owners = config, getattr(config, "vision_config", None), processor
    named = (getattr(owner, "num_frames", None) for owner in owners)
    return next((number for number in named if number is not None), DEFAULT_FRAMES)


def read_clip(source, processor, num_frames: int) -> tuple[np.ndarray, VideoMetadata]:
    """Frames of a video, spread as its checkpoint's processor does.

    Args:
        source: what [`~vidformers.decode_video`] takes.
        processor: a video processor.
        num_frames: how many. Of a video that has fewer, frames are repeated where the processor does so, and
            otherwise all are taken.

    Returns:
        uint8 (T, H, W, C), and the metadata that tells which frames these are.

    Raises:
        VideoDecodeError: the video cannot be read.
    """

    def sample(metadata):
        count = num_frames if processor.repeats_frames else min(num_frames, metadata.total_num_frames)
        return processor.sample_frames(metadata, num_frames=count)

    return decode_video(source, sample)


def any_size(model: PreTrainedModel) -> dict[str, bool]:
    """The argument with which a model takes videos of other sizes than it was trained on, where it needs one."""
    name = "interpolate_pos_encoding"
    return {name: True} if name in inspect.signature(model.forward).parameters else {}
