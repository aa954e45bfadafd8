"""Video processor of VideoPrism: what google-deepmind/videoprism (d481d91b) asks of its input."""

import torch
from transformers.image_processing_base import BatchFeature
from transformers.image_utils import PILImageResampling
from transformers.video_utils import VideoInput

from vidformers.video.processor import VideoProcessor


class VideoPrismVideoProcessor(VideoProcessor):
    """Takes `num_frames` frames spread evenly over a video, resizes them to 288 × 288 and scales values to 0…1.

    Frame i is number `i * n // num_frames` of n, as in the original's demonstrations; frames of a shorter video are
    repeated. There is no mean and no standard deviation. The demonstrations resize with Lanczos' filter
    (`resample=1`); the default is bicubic, as in transformers.

    `do_sample_frames=False` keeps all frames; with `do_pad=True` videos of unequal length form a batch, and
    `padding_mask_videos`, which the models take, says which frames are real.

    Videos of one shape come as one tensor even without `return_tensors`: transformers' page for VideoPrism hands that
    output to the model.

    Args:
        num_frames: 16 by default, 8 for the large and giant models.
        size: height and width in pixels: a dict with these names, two numbers, or one for both.

    All other arguments are those of [`~vidformers.video.VideoProcessor`].
    """

    resample = PILImageResampling.BICUBIC
    size = {"height": 288, "width": 288}
    num_frames = 16
    do_resize = True
    do_rescale = True
    do_normalize = False
    do_sample_frames = True
    repeats_frames = True

    def __init__(self, **kwargs):
        size = kwargs.get("size")
        if isinstance(size, (int, list, tuple)):
            height, width = (size, size) if isinstance(size, int) else size
            kwargs["size"] = {"height": height, "width": width}
        super().__init__(**kwargs)

    def preprocess(self, videos: VideoInput, **kwargs) -> BatchFeature:
        output = super().preprocess(videos, **kwargs)
        pixels = output["pixel_values_videos"]
        if isinstance(pixels, list) and len({video.shape for video in pixels}) == 1:
            output["pixel_values_videos"] = torch.stack(pixels)
        return output


__all__ = ["VideoPrismVideoProcessor"]
