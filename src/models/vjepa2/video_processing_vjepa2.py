"""Video processor of V-JEPA 2: the evaluation transform of facebookresearch/vjepa2 (c2963a47)."""

from typing import Any

from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling

from vidformers.video.processor import VideoProcessor


def _shortest_edge(crop_size: int) -> int:
    """Pixels of the shorter side before the crop, which keeps 224 of every 256."""
    return int(crop_size * 256 / 224)


class VJEPA2VideoProcessor(VideoProcessor):
    """Resizes the shorter side to `int(crop_size * 256 / 224)`, crops the center, and normalizes as for ImageNet.

    Args:
        crop_size: side of the square input in pixels, or a dict with `height` and `width`; 256 by default.
        size: what the shorter side becomes, as `{"shortest_edge": pixels}`. It follows from `crop_size` unless given
            (transformers ignores a given one). `from_pretrained(…, crop_size=…)` alone makes it follow again.

    All other arguments are those of [`~vidformers.video.VideoProcessor`]. In a call, `crop_size` sets the crop alone.
    """

    resample = PILImageResampling.BILINEAR
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    size = {"shortest_edge": _shortest_edge(256)}
    crop_size = 256
    do_resize = True
    do_center_crop = True
    do_rescale = True
    do_normalize = True

    def __init__(self, **kwargs):
        crop_size = kwargs.get("crop_size")
        if crop_size is None:
            crop_size = type(self).crop_size
        side = crop_size.get("height") if isinstance(crop_size, dict) else crop_size
        if not isinstance(side, int):
            raise ValueError(f"Expected crop_size in pixels, or a dict with height and width, got {crop_size!r}.")
        if kwargs.get("size") is None:
            kwargs["size"] = {"shortest_edge": _shortest_edge(side)}
        super().__init__(**kwargs)

    @classmethod
    def from_dict(cls, video_processor_dict: dict[str, Any], **kwargs) -> Any:
        if kwargs.get("crop_size") is not None:
            video_processor_dict = {key: value for key, value in video_processor_dict.items() if key != "size"}
        return super().from_dict(video_processor_dict, **kwargs)


__all__ = ["VJEPA2VideoProcessor"]
