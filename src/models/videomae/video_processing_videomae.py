"""Video processor of VideoMAE: the validation transform of MCG-NJU/VideoMAE (14ef8d85), `kinetics.py`."""

from transformers.image_processing_base import BatchFeature
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling, SizeDict
from transformers.video_utils import VideoInput

from vidformers.video.inputs import are_files
from vidformers.video.processor import VideoProcessor


class VideoMAEVideoProcessor(VideoProcessor):
    """Resizes the shorter side to 224, crops 224 × 224 pixels from the center, and normalizes as for ImageNet.

    `processor(videos, return_tensors="pt")` gives `pixel_values`, float32 (batch, frames, channels, height, width).

    Of a video file `num_frames` frames are taken, spread evenly, some of them several times where it has fewer;
    frames in memory are taken as they are. `do_sample_frames` says otherwise for both, as do `num_frames` and `fps`
    in a call.

    Floating-point values are scaled by 1/255 like bytes, without clipping or rounding: what lies outside 0…255 stays
    outside, and is named in a warning. Pass `do_rescale=False` for values within 0…1, and `do_normalize=False` as well
    for values that are normalized.

    Args:
        size: what the shorter side becomes, as `{"shortest_edge": pixels}` or a number; or exact `height` and `width`.
            A number alone is the crop's size too, as it was for `VideoMAEFeatureExtractor`.
        crop_size: height and width of the crop: a number, or a dict with these names. Given alone, it is the shorter
            side too (the larger one of the two).
        num_frames: how many frames of a file; 16 by default, `None` for all of them.

    All other arguments are those of [`~vidformers.video.VideoProcessor`]. transformers normalizes with 0.5 by default,
    where the original, its loss and all published directories have ImageNet's numbers. Resizing is antialiased, as in
    transformers; the original's `cv2.resize` is not.
    """

    model_input_names = ["pixel_values"]
    num_frames = 16
    repeats_frames = True
    do_resize = do_center_crop = do_rescale = do_normalize = True
    size = {"shortest_edge": 224}
    crop_size = {"height": 224, "width": 224}
    default_to_square = False
    resample = PILImageResampling.BILINEAR
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD

    def __init__(self, **kwargs):
        size, crop_size = kwargs.get("size"), kwargs.get("crop_size")
        if crop_size is None and isinstance(size, int):
            kwargs["crop_size"] = size
        elif size is None and crop_size is not None:
            kwargs["size"] = {"shortest_edge": _longer_side(crop_size)}
        super().__init__(**kwargs)

    def preprocess(self, videos: VideoInput, **kwargs) -> BatchFeature:
        unsaid = kwargs.get("do_sample_frames") is None and self.do_sample_frames is None
        if unsaid and self.num_frames is not None and are_files(videos):
            kwargs["do_sample_frames"] = True
        return super().preprocess(videos, **kwargs)


def _longer_side(crop_size) -> int:
    """Pixels of the longer side of a crop, in any form that `crop_size` has."""
    if isinstance(crop_size, int):
        return crop_size
    return max(dict(crop_size).values() if isinstance(crop_size, (dict, SizeDict)) else crop_size)


__all__ = ["VideoMAEVideoProcessor"]
