"""Video processor of V-JEPA 2: the evaluation transform of facebookresearch/vjepa2 (c2963a47)."""

from typing import Any, Literal, get_args

import numpy as np
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling
from transformers.video_utils import VideoMetadata

from vidformers.video.processor import VideoProcessor, VideoProcessorKwargs


ShortClips = Literal["error", "repeat"]


class VJEPA2VideoProcessorKwargs(VideoProcessorKwargs, total=False):
    """What a call takes: the arguments of all families and `short_clips`."""

    short_clips: str | None


def _shortest_edge(crop_size: int) -> int:
    """Pixels of the shorter side before the crop, which keeps 224 of every 256."""
    return int(crop_size * 256 / 224)


class VJEPA2VideoProcessor(VideoProcessor):
    """Resizes the shorter side to `int(crop_size * 256 / 224)`, crops the center, and normalizes as for ImageNet.

    Args:
        crop_size: side of the square input in pixels, or a dict with `height` and `width`; 256 by default.
        size: what the shorter side becomes, as `{"shortest_edge": pixels}`. It follows from `crop_size` unless given
            (transformers ignores a given one). `from_pretrained(…, crop_size=…)` alone makes it follow again.
        short_clips: what becomes of a video with fewer frames than `num_frames`: "error", the default, or "repeat",
            which takes some of its frames several times, so that a loop over many files doesn't stop at one.

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
    valid_kwargs = VJEPA2VideoProcessorKwargs
    short_clips: ShortClips = "error"

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
        _check(self.short_clips)

    @property
    def repeats_frames(self) -> bool:
        """Whether short videos are filled up, unless a call says otherwise."""
        return self.short_clips == "repeat"

    def sample_frames(
        self,
        metadata: VideoMetadata,
        num_frames: int | None = None,
        fps: float | None = None,
        short_clips: ShortClips | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """The frames that a call takes of a video.

        Args:
            metadata: of the video.
            num_frames: how many, spread evenly.
            fps: or how many a second.
            short_clips: what becomes of a video with fewer frames; by default what is stored.

        Returns:
            (T,) integers, ascending.

        Raises:
            ValueError: the video has fewer frames, and they are not to be repeated.
        """
        repeats = _check(short_clips or self.short_clips) == "repeat"
        return super().sample_frames(metadata, num_frames, fps, repeats_frames=repeats, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """What is saved: without `short_clips` where it is the default, as transformers writes it."""
        saved = super().to_dict()
        if saved.get("short_clips") == type(self).short_clips:
            del saved["short_clips"]
        return saved

    @classmethod
    def from_dict(cls, video_processor_dict: dict[str, Any], **kwargs) -> Any:
        if kwargs.get("crop_size") is not None:
            video_processor_dict = {key: value for key, value in video_processor_dict.items() if key != "size"}
        return super().from_dict(video_processor_dict, **kwargs)


def _check(short_clips: str) -> str:
    """The argument, or a ValueError for what it cannot be."""
    if short_clips not in get_args(ShortClips):
        raise ValueError(f"Expected short_clips to be {' or '.join(get_args(ShortClips))}, got {short_clips!r}.")
    return short_clips


__all__ = ["VJEPA2VideoProcessor"]
