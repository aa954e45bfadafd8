"""Video processor of VideoMAE: the validation transform of MCG-NJU/VideoMAE (14ef8d85), `kinetics.py`."""

from typing import Any

import torch
from transformers.image_processing_base import BatchFeature
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling, SizeDict
from transformers.video_utils import VideoInput

from vidformers.video import transform
from vidformers.video.inputs import are_files
from vidformers.video.processor import VideoProcessor, VideoProcessorKwargs


class VideoMAEVideoProcessorKwargs(VideoProcessorKwargs, total=False):
    """What a call takes besides: `antialias`."""

    antialias: bool | None


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
        antialias: whether resizing is antialiased, on bytes, as in transformers (the default); or takes the nearest
            pixels alone, of values that are scaled already.

    All other arguments are those of [`~vidformers.video.VideoProcessor`]. transformers normalizes with 0.5 by default,
    where the original, its loss and all published directories have ImageNet's numbers. Resizing is antialiased, as in
    transformers; the original's `cv2.resize` is not.
    """

    valid_kwargs = VideoMAEVideoProcessorKwargs
    antialias = True
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

    @classmethod
    def for_detection(cls, size: int | tuple[int, int] = 224) -> "VideoMAEVideoProcessor":
        """A processor that makes the pixels of VideoMAE V2's features for temporal action detection.

        They are all frames, squeezed to a square whatever their shape, from 0 to 1 and without ImageNet's mean and
        deviation, which the models were trained with: so the published features were made.

        Args:
            size: side of the square in pixels, or height and width.

        Source: OpenGVLab/VideoMAEv2 at 29eab1e8, `extract_tad_feature.py`.
        """
        height, width = (size, size) if isinstance(size, int) else size
        size = {"height": height, "width": width}
        return cls(size=size, do_center_crop=False, do_normalize=False, antialias=False, num_frames=None)

    def to_dict(self) -> dict[str, Any]:
        """What is saved: without `antialias` where that is on, as transformers writes it."""
        saved = super().to_dict()
        if saved.get("antialias") is not False:
            saved.pop("antialias", None)
        return saved

    def preprocess(self, videos: VideoInput, **kwargs) -> BatchFeature:
        unsaid = kwargs.get("do_sample_frames") is None and self.do_sample_frames is None
        if unsaid and self.num_frames is not None and are_files(videos):
            kwargs["do_sample_frames"] = True
        return super().preprocess(videos, **kwargs)

    def _preprocess(self, videos: list[torch.Tensor], antialias: bool | None = True, **kwargs) -> BatchFeature:
        if antialias is False and kwargs["do_resize"]:
            if kwargs["do_rescale"]:
                videos = [video.float() / (1 / kwargs["rescale_factor"]) for video in videos]
            videos = [self._resize(video.float(), kwargs["size"], kwargs["resample"]) for video in videos]
            kwargs |= {"do_resize": False, "do_rescale": False}
        return super()._preprocess(videos, **kwargs)

    @staticmethod
    def _resize(video: torch.Tensor, size: SizeDict, resample: int) -> torch.Tensor:
        new_size = transform.resize_size(*video.shape[-2:], size)
        # torch rounds elsewhere where frames come before channels; the original has channels first.
        return transform.resize(video.transpose(0, 1), new_size, int(resample), antialias=False).transpose(0, 1)


def _longer_side(crop_size) -> int:
    """Pixels of the longer side of a crop, in any form that `crop_size` has."""
    if isinstance(crop_size, int):
        return crop_size
    return max(dict(crop_size).values() if isinstance(crop_size, (dict, SizeDict)) else crop_size)


__all__ = ["VideoMAEVideoProcessor"]
