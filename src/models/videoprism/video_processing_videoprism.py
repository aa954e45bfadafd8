"""Video processor of VideoPrism: what google-deepmind/videoprism (d481d91b) asks of its input."""

import numpy as np
from transformers.image_utils import PILImageResampling
from transformers.video_utils import VideoMetadata

from ...video.processor import VideoProcessor
from ...video.sample import uniform_indices


class VideoPrismVideoProcessor(VideoProcessor):
    """Takes `num_frames` frames spread evenly over a video, resizes them to 288 × 288 and scales values to 0…1.

    Frame i is number `i * n // num_frames` of n, as in the original's demonstrations; frames of a shorter video are
    repeated. There is no mean and no standard deviation. The demonstrations resize with Lanczos' filter, which has no
    tensor implementation; bicubic, the closest that has one, is what transformers takes.

    `do_sample_frames=False` keeps all frames; with `do_pad=True` videos of unequal length form a batch, and
    `padding_mask_videos`, which the models take, says which frames are real.

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

    def __init__(self, **kwargs):
        size = kwargs.get("size")
        if isinstance(size, (int, list, tuple)):
            height, width = (size, size) if isinstance(size, int) else size
            kwargs["size"] = {"height": height, "width": width}
        super().__init__(**kwargs)

    def sample_frames(
        self, metadata: VideoMetadata, num_frames: int | None = None, fps: float | None = None, **kwargs
    ) -> np.ndarray:
        """As the base class, but a video with fewer frames than `num_frames` gives some of them several times.

        Args:
            metadata: of the video, with `total_num_frames`.
            num_frames: how many frames to take, spread evenly.
            fps: or how many a second.
            **kwargs: as for [`~vidformers.video.VideoProcessor`].

        Returns:
            Frame indices, int64 of shape (num_frames,).
        """
        if num_frames is not None and fps is None:
            return uniform_indices(metadata, num_frames)
        return super().sample_frames(metadata, num_frames, fps, **kwargs)


__all__ = ["VideoPrismVideoProcessor"]
