"""The base of every family's video processor: any kind of video in, a batch of model input out, no torchvision."""

from functools import partial
from typing import Any

import numpy as np
import torch
from transformers.image_processing_base import BatchFeature
from transformers.image_utils import ChannelDimension, PILImageResampling
from transformers.processing_utils import VideosKwargs
from transformers.utils import logging
from transformers.video_processing_utils import VideoProcessorMixin
from transformers.video_utils import VideoMetadata

from . import transform
from .decode import decode_video
from .inputs import channels_first, is_decoder, is_file, list_videos, to_tensor
from .sample import SAMPLERS, all_indices, fps_indices, named_sampler, uniform_indices
from .torchcodec import read_torchcodec


logger = logging.get_logger(__name__)


class VideoProcessorKwargs(VideosKwargs, total=False):
    """What a call of a video processor takes: transformers' arguments and `sampling`."""

    sampling: str | None


class VideoProcessor(VideoProcessorMixin):
    """Decodes, samples, resizes, crops, rescales and normalises videos.

    Takes what the video processors of transformers take, with their arguments, class attributes and JSON, and gives
    the same values to the bit; families set the class attributes. What differs:

    - Files and URLs are decoded by PyAV, without torchcodec (`bytes`, `os.PathLike` and file objects work too).
    - `do_convert_rgb` is on by default. Grey frames become RGB; transparent ones are laid on white and stay uint8.
    - `num_frames` or `fps` in a call turns frame sampling on unless the call's `do_sample_frames` says otherwise, and
      overrides the other one's stored value.
    - `sampling`, a name of [`~vidformers.video.sample.SAMPLERS`], chooses frames in another way than the family's own:
      `sampling="fps_by_time", fps=2` takes the frame that is shown every half second. It is stored like the rest.
    - `do_pad=True` pads videos of unequal length with zeros where tensors are returned, and adds
      `padding_mask_videos`, bool (batch, frames), True where a frame is real.
    - Unknown arguments, frames of unequal size, and videos that cannot form a batch are errors.

    `processor(videos, return_tensors="pt")` gives `pixel_values_videos`, float32 (batch, frames, channels, height,
    width); without `return_tensors` a list of tensors, one a video. A family may give the output another name
    (`model_input_names`), and repeat frames of videos that are shorter than `num_frames` (`repeats_frames`).
    """

    valid_kwargs = VideoProcessorKwargs
    sampling = None
    do_convert_rgb = True
    resample = PILImageResampling.BILINEAR
    repeats_frames = False

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._set_attributes(**kwargs)
        if self.sampling is not None and self.sampling not in SAMPLERS:
            named_sampler(self.sampling)

    def to_dict(self) -> dict[str, Any]:
        """What is saved: without `sampling` where the family's own way is kept, as transformers writes it."""
        saved = super().to_dict()
        if saved.get("sampling") is None:
            saved.pop("sampling", None)
        return saved

    def preprocess(self, videos: Any, **kwargs) -> BatchFeature:
        """Prepare videos, as a call of the processor does.

        Args:
            videos: one or several, each a path or URL, a file, an array or tensor of frames, or a list of pictures.
            **kwargs: arguments of the class, which override the stored ones for this call.

        Raises:
            VideoDecodeError: a file cannot be decoded.
            ValueError: the videos' shapes are not those of videos, or do not fit together.
            TypeError: an unknown argument, or something that is no video.
        """
        known = self.valid_kwargs.__annotations__
        unknown = sorted(set(kwargs) - set(known))
        if unknown:
            raise TypeError(f"{type(self).__name__} got unknown arguments {unknown}; it takes {sorted(known)}.")
        num_frames, fps = kwargs.get("num_frames"), kwargs.get("fps")
        if num_frames is not None or fps is not None:
            kwargs["num_frames"], kwargs["fps"] = num_frames, fps
        asks = num_frames is not None or fps is not None or kwargs.get("sampling") is not None
        if asks and kwargs.get("do_sample_frames") is None:
            kwargs["do_sample_frames"] = True
        if kwargs.get("data_format", ChannelDimension.FIRST) not in (None, ChannelDimension.FIRST):
            raise ValueError(
                f'Expected data_format "channels_first", as models take it, got {kwargs["data_format"]!r}.'
            )
        return super().preprocess(videos, **kwargs)

    def choose_frames(
        self,
        metadata: VideoMetadata,
        num_frames: int | None = None,
        fps: float | None = None,
        sampling: str | None = None,
        **kwargs,
    ) -> np.ndarray:
        """Indices of the frames to take: by the way that `sampling` names, or without one by `sample_frames`.

        Raises:
            ValueError: an unknown name, a number that the way needs is lacking, or what `sample_frames` raises.
        """
        if sampling is not None:
            return named_sampler(sampling, num_frames, fps)(metadata)
        return self.sample_frames(metadata, num_frames=num_frames, fps=fps, **kwargs)

    def sample_frames(
        self,
        metadata: VideoMetadata,
        num_frames: int | None = None,
        fps: float | None = None,
        repeats_frames: bool | None = None,
        **kwargs,
    ) -> np.ndarray:
        """Frame indices to take: `num_frames` spread evenly, or `fps` a second, or all; families may override.

        Args:
            metadata: of the video.
            num_frames: how many.
            fps: how many a second.
            repeats_frames: in the place of the class' `repeats_frames`.
            **kwargs: other settings of the processor, which change nothing here.

        Raises:
            ValueError: both are given, or the video has fewer frames than that and `repeats_frames` is off.
        """
        if num_frames is not None and fps is not None:
            raise ValueError(f"Expected num_frames or fps, got both (num_frames={num_frames}, fps={fps}).")
        if fps is not None:
            return fps_indices(metadata, fps)
        if num_frames is None:
            return all_indices(metadata)
        repeats_frames = self.repeats_frames if repeats_frames is None else repeats_frames
        if num_frames > metadata.total_num_frames and not repeats_frames:
            raise ValueError(
                f"Expected a video of at least num_frames={num_frames} frames, got {metadata.total_num_frames}. Ask "
                "for fewer, or repeat frames on purpose: decode_video(file, functools.partial(uniform_indices, "
                f"num_frames={num_frames}))."
            )
        return uniform_indices(metadata, num_frames)

    def fetch_videos(self, video_url_or_urls: Any, sample_indices_fn: Any = None) -> Any:
        """Decode one source, or lists of them, to (frames, metadata), as the inherited method, with PyAV."""
        if isinstance(video_url_or_urls, list):
            return list(zip(*[self.fetch_videos(source, sample_indices_fn) for source in video_url_or_urls]))
        return decode_video(video_url_or_urls, sample_indices_fn)

    def _decode_and_sample_videos(
        self, videos, video_metadata=None, do_sample_frames=None, sample_indices_fn=None
    ) -> tuple[list[np.ndarray | torch.Tensor], list[VideoMetadata]]:
        sources = list_videos(videos)
        given = _list_metadata(video_metadata, len(sources))
        sample = None if sample_indices_fn is None else partial(self.choose_frames, **sample_indices_fn.keywords)
        decoded = []
        for source, metadata in zip(sources, given):
            if is_decoder(source):
                decoded.append(read_torchcodec(source, sample))
            elif is_file(source):
                decoded.append(decode_video(source, sample))
            else:
                decoded.append(_sample_array(source, metadata, sample))
        frames, metadata = zip(*decoded)
        return list(frames), list(metadata)

    def _prepare_input_videos(
        self, videos, do_convert_rgb=None, input_data_format=None, device=None
    ) -> list[torch.Tensor]:
        prepared = []
        for video in videos:
            video = channels_first(to_tensor(video), input_data_format)
            if 0 in video.shape:
                raise ValueError(f"Expected videos with at least one frame and pixel, got shape {tuple(video.shape)}.")
            if do_convert_rgb:
                video = _to_rgb(video)
            prepared.append(video if device is None else video.to(device))
        return prepared

    def _preprocess(
        self,
        videos: list[torch.Tensor],
        do_resize: bool | None,
        size,
        resample,
        do_center_crop: bool | None,
        crop_size,
        do_rescale: bool | None,
        rescale_factor: float,
        do_normalize: bool | None,
        image_mean,
        image_std,
        do_pad: bool | None,
        return_tensors: str | None,
        **kwargs,
    ) -> BatchFeature:
        cropped = []
        for video in videos:
            _warn_if_already_scaled(video, do_rescale)
            if do_resize:
                new_size = transform.resize_size(*video.shape[-2:], size)
                video = transform.resize(video, new_size, int(resample))
            if do_center_crop:
                video = transform.center_crop(video, (crop_size.height, crop_size.width))
            cropped.append(video)
        scale = rescale_factor if do_rescale else None
        mean, std = (image_mean, image_std) if do_normalize else (None, None)
        batched = len({(video.shape, video.device) for video in cropped}) == 1
        if batched and do_normalize:
            shape = (len(cropped), *cropped[0].shape)
            pixels = torch.empty(shape, dtype=torch.float32, device=cropped[0].device)
            for video, out in zip(cropped, pixels):
                transform.rescale_and_normalize(video, scale, mean, std, out=out)
        else:
            pixels = [transform.rescale_and_normalize(video, scale, mean, std).contiguous() for video in cropped]
        return _batch(self.model_input_names[0], pixels, do_pad, return_tensors)


def _batch(name: str, pixels, do_pad: bool | None, return_tensors: str | None) -> BatchFeature:
    """The output: a list of tensors without `return_tensors`, else one tensor, padded if asked and needed."""
    if return_tensors is None:
        return BatchFeature(data={name: list(pixels)})
    data = {name: pixels}
    if not isinstance(pixels, torch.Tensor):
        frame_shapes = sorted({tuple(video.shape[1:]) for video in pixels})
        lengths = [len(video) for video in pixels]
        if len(frame_shapes) > 1:
            raise ValueError(
                f"Cannot stack videos of unequal frame shapes (channels, height, width): {frame_shapes}. Resize to a "
                "fixed height and width, turn do_center_crop on, or leave return_tensors out."
            )
        if len(set(lengths)) == 1:
            data[name] = torch.stack(pixels)
        elif do_pad:
            data[name], data["padding_mask_videos"] = transform.pad_videos(pixels)
        else:
            raise ValueError(
                f"Cannot stack videos of {lengths} frames. Pass do_pad=True for padding and a mask, num_frames=… for "
                "equally many of each, or leave return_tensors out."
            )
    return BatchFeature(data=data, tensor_type=return_tensors)


def _list_metadata(video_metadata, num_videos: int) -> list[VideoMetadata | None]:
    """One entry a video, from nothing, one mapping, or (nested) lists of them."""
    if video_metadata is None:
        return [None] * num_videos
    entries = video_metadata if isinstance(video_metadata, (list, tuple)) else [video_metadata]
    entries = [entry for item in entries for entry in (item if isinstance(item, (list, tuple)) else [item])]
    if len(entries) != num_videos:
        raise ValueError(f"Expected one video_metadata for each of the {num_videos} videos, got {len(entries)}.")
    return [None if entry is None else VideoMetadata(**entry) for entry in entries]


def _sample_array(video, metadata: VideoMetadata | None, sample) -> tuple[Any, VideoMetadata]:
    """The chosen frames of an array, and its metadata, made up from the shape where none was given."""
    if metadata is None:
        height, width = channels_first(to_tensor(video[:1]), None).shape[-2:] if len(video) else (None, None)
        indices = None if sample else list(range(len(video)))
        metadata = VideoMetadata(total_num_frames=len(video), height=height, width=width, frames_indices=indices)
    if sample is None:
        return video, metadata
    indices = np.asarray(sample(metadata))
    if indices.size and (indices.min() < 0 or indices.max() >= len(video)):
        raise ValueError(
            f"Sampling chose frame {indices.max()}, but the video holds {len(video)} frames (its metadata says "
            f"{metadata.total_num_frames}). If it was sampled before, pass do_sample_frames=False."
        )
    metadata.frames_indices = indices.tolist()
    return video[torch.from_numpy(indices) if isinstance(video, torch.Tensor) else indices], metadata


def _to_rgb(video: torch.Tensor) -> torch.Tensor:
    """(frames, 3, height, width); grey is repeated, transparency is laid on white (1 for floats within 0…1)."""
    channels = video.shape[1]
    if channels == 3:
        return video
    if channels == 1:
        return video.expand(-1, 3, -1, -1)
    if channels != 4:
        raise ValueError(f"Expected 1, 3 or 4 channels to convert to RGB, got {channels}. Pass do_convert_rgb=False.")
    color, alpha = video[:, :3], video[:, 3:]
    white = 1.0 if video.is_floating_point() and video.max() <= 1 else 255.0
    if (alpha == white).all():
        return color
    opacity = alpha.float() / white
    blended = (1 - opacity) * white + opacity * color
    return blended if video.is_floating_point() else blended.round_().to(video.dtype)


def _warn_if_already_scaled(video: torch.Tensor, do_rescale: bool | None) -> None:
    if not do_rescale or not video.is_floating_point():
        return
    lowest, highest = video.aminmax()
    if lowest < 0:
        logger.warning_once(
            "A floating-point video with negative values is being rescaled as if they were within 0…255; nothing is "
            "clipped. Pass do_rescale=False, and do_normalize=False if it was normalised before."
        )
    elif 0 < highest <= 1:
        logger.warning_once(
            "A floating-point video with values within 0…1 is being rescaled again. Pass do_rescale=False if it was "
            "scaled before."
        )
