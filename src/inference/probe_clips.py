"""Clips as probes see them: which frames of a video are taken, and what becomes of their pixels.

Source: facebookresearch/vjepa2 at c2963a47, `evals/video_classification_frozen`, `evals/image_classification_frozen`
and `evals/action_anticipation_frozen`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from transformers.video_utils import VideoMetadata

from vidformers.training.batches import reason_of, seeded
from vidformers.video import (
    VideoDecodeError,
    VJEPA2EvaluationViews,
    VJEPA2ImageAugmentation,
    VJEPA2ImageView,
    VJEPA2ProbeAugmentation,
    anticipation_indices,
    clip_indices,
)
from vidformers.video.decode import decode_video
from vidformers.video.processor import VideoProcessor

from .actions import Action
from .clips import clip_indices_of
from .media import Clip, ImageClip


TRAINING_TIMES, TRAINING_POINTS = (0.25, 1.75), (0.0, 0.25)
TEST_TIMES, TEST_POINTS = (1.0, 1.0), (0.0, 0.0)


class Prepare(Protocol):
    """Makes model input of clips.

    Attributes:
        views: crops of a clip.
        repeats: whether it makes the same of a clip every time.
    """

    views: int
    repeats: bool

    def __call__(self, clip: Clip) -> dict[str, torch.Tensor]:
        """Arguments of a model with a probe, without a batch."""


@dataclass(frozen=True)
class ClipViews:
    """Model input of a clip that is to be classified.

    Attributes:
        processor: the model's. Whatever way pixels are made, they are normalized as it does.
        num_frames: frames of a segment.
        segments: equal parts of the video, of each of which the model sees a clip.
        views: crops along the longer side.
        frame_step: every Nth frame is taken, and crops are made as the original does; `None` to take the frames
            that the processor takes, and prepare them as it does, in one segment and view.
        drawn: whether the place of a clip in its part is drawn; else it is the beginning.
        augment: whether a view is drawn as the original does in training.
    """

    processor: VideoProcessor
    num_frames: int
    segments: int = 1
    views: int = 1
    frame_step: int | None = None
    drawn: bool = False
    augment: bool = False

    @property
    def repeats(self) -> bool:
        """Whether it makes the same of a clip every time."""
        return not (self.drawn or self.augment)

    def __call__(self, clip: Clip) -> dict[str, torch.Tensor]:
        """Read a clip. What is drawn comes from global generators.

        Args:
            clip: names a video.

        Returns:
            `pixel_values_videos`, (views, segments, T, C, H, W) float32.

        Raises:
            VideoDecodeError: the video cannot be read, or no frames can be chosen of it.
        """
        frames, _ = decode_video(clip.open(), self._indices)
        if self.frame_step is None and not self.augment:
            return {"pixel_values_videos": as_processed(frames, self.processor)[None, None]}
        segments = np.split(frames, self.segments)
        return {"pixel_values_videos": torch.stack([self._pixels(frames) for frames in segments], dim=1)}

    def _indices(self, metadata: VideoMetadata) -> np.ndarray:
        if self.frame_step is None:
            return clip_indices_of(self.processor, self.num_frames, metadata, exactly=True)
        clips = clip_indices(
            metadata,
            self.num_frames,
            self.segments,
            frame_step=self.frame_step,
            allow_overlap=True,
            random=self.drawn,
        )
        return clips.reshape(-1)

    def _pixels(self, frames: np.ndarray) -> torch.Tensor:
        """Views of a segment (T, H, W, 3): (views, T, C, S, S)."""
        side = side_of(self.processor)
        if self.augment:
            pixels = VJEPA2ProbeAugmentation(side)(frames)[None]
        else:
            pixels = VJEPA2EvaluationViews(side, self.views)(frames)
        return renormalized(pixels, self.processor)


@dataclass(frozen=True)
class StillClips:
    """Model input of an image: a clip of which all frames are alike.

    Attributes:
        processor: the model's. Whatever way pixels are made, they are normalized as it does.
        num_frames: frames of a clip.
        as_original: whether the middle is cut out as the original does, and not by the processor. For V-JEPA 2 both
            are the same, but that a middle between two pixels may be another one.
        augment: whether a crop, a flip, changes and noise are drawn as the original does in training.
    """

    processor: VideoProcessor
    num_frames: int
    as_original: bool = False
    augment: bool = False
    views = 1

    @property
    def repeats(self) -> bool:
        """Whether it makes the same of an image every time."""
        return not self.augment

    def __call__(self, image: ImageClip) -> dict[str, torch.Tensor]:
        """Read an image. What is drawn comes from global generators.

        Args:
            image: an image.

        Returns:
            `pixel_values_videos`, (1, 1, T, C, H, W) float32.

        Raises:
            VideoDecodeError: it cannot be read.
        """
        frame = image.read()[None]  # (1, H, W, 3)
        if self.augment or self.as_original:
            make = VJEPA2ImageAugmentation if self.augment else VJEPA2ImageView
            pixels = renormalized(make(side_of(self.processor))(frame), self.processor)
        else:
            pixels = as_processed(frame, self.processor)
        return {"pixel_values_videos": pixels.expand(1, 1, self.num_frames, -1, -1, -1)}


@dataclass(frozen=True)
class AnticipationClips:
    """Model input of what precedes an action.

    Attributes:
        processor: the model's.
        num_frames: frames of a clip.
        fps: frames per second.
        augment: whether the time before the action and the view are drawn as in training; else it is one second, and
            the middle of the image.
    """

    processor: VideoProcessor
    num_frames: int
    fps: float
    augment: bool = False
    views = 1

    @property
    def repeats(self) -> bool:
        """Whether it makes the same of an action every time."""
        return not self.augment

    def __call__(self, action: Action) -> dict[str, torch.Tensor]:
        """Read what precedes an action. What is drawn comes from global generators.

        Args:
            action: an action.

        Returns:
            `pixel_values_videos` (T, C, S, S) float32, and `anticipation_times`, a scalar.

        Raises:
            VideoDecodeError: the video cannot be read, or is slower than `fps`.
        """
        seconds = 0.0

        def sample(metadata):
            nonlocal seconds
            indices, seconds = anticipation_indices(
                metadata,
                self.num_frames,
                self.fps,
                start=action.start,
                stop=action.stop,
                anticipation_time=TRAINING_TIMES if self.augment else TEST_TIMES,
                anticipation_point=TRAINING_POINTS if self.augment else TEST_POINTS,
            )
            return indices

        frames, _ = decode_video(action.open(), sample)
        side = side_of(self.processor)
        if self.augment:
            pixels = VJEPA2ProbeAugmentation(side, random_horizontal_flip=True)(frames)
        else:
            pixels = VJEPA2EvaluationViews(side, num_views=1)(frames)[0]
        return {
            "pixel_values_videos": renormalized(pixels, self.processor),
            "anticipation_times": torch.tensor(seconds),
        }


def as_processed(frames: np.ndarray, processor: VideoProcessor) -> torch.Tensor:
    """What a processor makes of frames (T, H, W, 3): (T, C, H, W)."""
    return processor(frames, do_sample_frames=False, return_tensors="pt")[processor.model_input_names[0]][0]


def labels_of(clips: Sequence[Clip]) -> dict[str, torch.Tensor]:
    """The labels of clips as arguments of a model's `forward`, (B,) each."""
    labels = {"labels": [clip.label for clip in clips]}
    if isinstance(clips[0], Action):
        labels |= {"verb_labels": [clip.verb for clip in clips], "noun_labels": [clip.noun for clip in clips]}
    return {name: torch.tensor(numbers) for name, numbers in labels.items()}


def side_of(processor: VideoProcessor) -> int:
    """Pixels of a side of the squares that a model sees.

    Raises:
        ValueError: they are no squares.
    """
    size = processor.crop_size if processor.do_center_crop else processor.size
    height, width = size["height"], size["width"]
    if height is None or height != width:
        raise ValueError(
            f"V-JEPA 2's views and augmentations are squares, and this model's processor makes {height} × {width} "
            "pixels: give it a square size, or leave out views, steps of frames and augmentations."
        )
    return height


def renormalized(pixels: torch.Tensor, processor: VideoProcessor) -> torch.Tensor:
    """Pixels (…, C, H, W) that have ImageNet's mean and deviation, as a processor normalizes them."""
    old = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    new = (processor.image_mean, processor.image_std) if processor.do_normalize else ([0.0] * 3, [1.0] * 3)
    if [list(each) for each in old] == [list(each) for each in new]:
        return pixels
    (old_mean, old_std), (mean, std) = (
        [torch.tensor(values)[:, None, None] for values in each] for each in (old, new)
    )
    return (pixels * old_std + old_mean - mean) / std


class PreparedClips(torch.utils.data.Dataset):
    """Model input of clips, or why a clip cannot be used.

    Args:
        clips: what is read.
        prepare: a [`ClipViews`], [`StillClips`] or [`AnticipationClips`].
        seed: of what is drawn; together with a clip's place among the clips it decides.
    """

    def __init__(self, clips: Sequence[Clip], prepare: Prepare, seed: Sequence[int] = (0,)):
        self.clips, self.prepare, self.seed = clips, prepare, seed

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> tuple[Clip, dict[str, torch.Tensor] | str]:
        clip = self.clips[index]
        try:
            with seeded(*self.seed, index):
                return clip, self.prepare(clip)
        except (VideoDecodeError, OSError) as error:
            return clip, reason_of(clip, error)


def stacked(
    items: Sequence[tuple[Clip, dict[str, torch.Tensor] | str]],
) -> tuple[list[Clip], dict[str, torch.Tensor], dict[Clip, str]]:
    """A batch of [`PreparedClips`]: the clips that can be used, their input, and why others cannot."""
    problems = {clip: inputs for clip, inputs in items if isinstance(inputs, str)}
    kept = [(clip, inputs) for clip, inputs in items if clip not in problems]
    names = kept[0][1] if kept else ()
    inputs = {name: torch.stack([each[name] for _, each in kept]) for name in names}
    return [clip for clip, _ in kept], inputs, problems
