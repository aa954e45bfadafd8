"""What the commands that run models on video files share: loading a model, and how it wants its frames."""

import inspect
import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModel, AutoProcessor, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging
from transformers.video_utils import VideoMetadata

from vidformers.families import FAMILIES
from vidformers.video.decode import decode_video


DEFAULT_FRAMES = 8
"""Frames to take of a video where neither processor nor configuration names a number, as for most PE checkpoints."""


@dataclass(frozen=True)
class Directory:
    """A directory or repository with a model, and what loads the part of it that videos need.

    Attributes:
        path: what `from_pretrained` takes.
        config: configuration of the base model, which `load_model` builds as it is then.
        model_class: class that loads it.
        processor_class: class that loads its processors.
    """

    path: str | os.PathLike
    config: PreTrainedConfig
    model_class: type
    processor_class: type

    @classmethod
    def open(cls, path: str | os.PathLike) -> "Directory":
        """Read the configuration. Of a larger model's directory, such as PE-AV's, a family's part is taken.

        Raises:
            OSError: there is no such directory, and no such repository.
        """
        if not Path(path).is_dir() and (Path(path).is_absolute() or len(Path(path).parts) > 2):
            raise FileNotFoundError(
                f"{path}: there is no such directory. Give one that holds a model, or the name of a repository on the "
                "Hub, such as facebook/vjepa2-vitl-fpc64-256."
            )
        model_type = PreTrainedConfig.get_config_dict(path)[0].get("model_type")
        for family in FAMILIES.values():
            if model_type in family.contained_in:
                package = import_module("vidformers")
                model_class = getattr(package, family.contained_in[model_type])
                processor_class = getattr(package, family.processor_class)
                return cls(path, model_class.config_class.from_pretrained(path), model_class, processor_class)
        return cls(path, AutoConfig.from_pretrained(path), AutoModel, AutoProcessor)

    def load_model(self, dtype: torch.dtype) -> PreTrainedModel:
        """The base model in evaluation mode, of a classifier the encoder alone.

        Raises:
            ValueError: the directory lacks weights of the model.
        """
        options = {"config": self.config, "dtype": dtype, "output_loading_info": True}
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # what the base model has no use for is left unread on purpose
        try:
            model, found = self.model_class.from_pretrained(self.path, **options)
        finally:
            logging.set_verbosity(verbosity)
        if found["missing_keys"]:
            raise ValueError(f"{self.path}: lacks the weights {', '.join(sorted(found['missing_keys']))}.")
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
