"""Video processor of PE core: `core/audio_visual_encoder/transforms.py` of perception_models (3e352cca)."""

import numpy as np
import torch
from transformers.image_processing_base import BatchFeature
from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD, PILImageResampling
from transformers.video_utils import VideoMetadata

from vidformers.video.processor import VideoProcessor
from vidformers.video.sample import uniform_indices


class PeCoreVideoProcessor(VideoProcessor):
    """Resizes frames to 336 × 336, whatever their aspect ratio, and scales values to -1…1.

    With `num_frames`, frames are spread evenly from the first to the last: number `i * (n - 1) // (num_frames - 1)`
    of n, so that some repeat in a shorter video. Without it the model takes all frames, or `fps` a second.

    With `return_tensors`, videos of unequal length are padded with zeros at their end, and `padding_mask_videos`, bool
    (batch, frames), which the models take, says which frames are real, also where all are. Without `return_tensors`
    there is a list of videos as long as they are, and no mask.

    Args:
        num_frames: `None` by default, for all frames.
        size: a dict with `height` and `width`.

    All other arguments are those of [`~vidformers.video.VideoProcessor`].
    """

    resample = PILImageResampling.BILINEAR
    image_mean = IMAGENET_STANDARD_MEAN
    image_std = IMAGENET_STANDARD_STD
    size = {"height": 336, "width": 336}
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_pad = True
    repeats_frames = True

    def sample_frames(
        self, metadata: VideoMetadata, num_frames: int | None = None, fps: float | None = None, **kwargs
    ) -> np.ndarray:
        """Choose frames as the base class does, but `num_frames` reach from the first frame to the last.

        Args:
            metadata: of the video: `total_num_frames`, and for `fps` its own rate in frames per second.
            num_frames: how many frames; where the video has fewer, some repeat.
            fps: how many frames per second, at most the video's own rate. Without it and `num_frames`, all frames.
            **kwargs: other settings of the processor, which change nothing here.

        Returns:
            int64 of shape (frames,), the numbers of the frames, ascending from 0.

        Raises:
            ValueError: both `num_frames` and `fps`, a number below one, or an `fps` above the video's rate or for a
                video of unknown rate.
        """
        if num_frames is not None and fps is None:
            return uniform_indices(metadata, num_frames, endpoint=True)
        return super().sample_frames(metadata, num_frames, fps, **kwargs)

    def _preprocess(self, videos, do_pad=None, return_tensors=None, **kwargs) -> BatchFeature:
        batch = super()._preprocess(videos, do_pad=do_pad, return_tensors=return_tensors, **kwargs)
        if do_pad and return_tensors is not None and "padding_mask_videos" not in batch:
            mask = torch.ones(batch["pixel_values_videos"].shape[:2], dtype=torch.bool)
            batch.update(BatchFeature({"padding_mask_videos": mask}, tensor_type=return_tensors))
        return batch


__all__ = ["PeCoreVideoProcessor"]
