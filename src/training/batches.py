"""Batches of clips and of images for pre-training, each of which follows from its number alone.

Whatever draws, places of clips, crops and masks, is seeded by the number. So batches are the same however many
processes and workers share them, and a run that goes on where it stopped goes on with the same ones.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict

import numpy as np
import torch
from transformers.video_utils import VideoMetadata

from vidformers.models.pretrained import MaskCollator
from vidformers.models.records import ImageRecipe, Recipe
from vidformers.video import VideoDecodeError, clip_indices, decode_video
from vidformers.video.augment import VJEPA2PretrainingAugmentation

from .samplers import WeightedSampler


MOST_TRIES = 10
"""How many videos are tried for a place in a batch, one after the other, while they cannot be used."""
ORDERS, VIDEOS, MASKS = range(3)
"""What is drawn, to tell the draws of one number apart."""


class Video(Protocol):
    """A video to train on.

    Attributes:
        name: what messages call it.
    """

    name: str

    def open(self) -> Any:
        """What [`~vidformers.decode_video`] takes."""


class Image(Protocol):
    """An image to train on.

    Attributes:
        name: what messages call it.
    """

    name: str

    def read(self) -> np.ndarray:
        """The pixels, uint8 (H, W, 3). A `VideoDecodeError` says why there are none."""


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Let the global generators of Python, NumPy and torch draw as numbers say; afterwards they go on as before."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


class ClipReader:
    """Takes a clip out of a video at a random place and varies it.

    Args:
        recipe: says how long and how large a clip is, and how it is cropped.
    """

    def __init__(self, recipe: Recipe):
        self.num_frames = recipe.num_frames
        self.spacing = {"fps": recipe.fps} if recipe.frame_step is None else {"frame_step": recipe.frame_step}
        self.augment = VJEPA2PretrainingAugmentation(
            recipe.crop_size, recipe.resize_scale, recipe.resize_aspect_ratio, recipe.flip
        )

    def __call__(self, video: Video) -> torch.Tensor:
        """Take a clip.

        Args:
            video: the video.

        Returns:
            (T, C, S, S) float32, normalized by the statistics of ImageNet.

        Raises:
            VideoDecodeError: the video cannot be read, or has fewer frames than a clip.
        """
        frames, _ = decode_video(video.open(), self._indices)
        return self.augment(frames)

    def _indices(self, metadata: VideoMetadata) -> np.ndarray:
        if metadata.total_num_frames < self.num_frames:
            raise ValueError(f"it has {metadata.total_num_frames} frames, fewer than the {self.num_frames} of a clip")
        return clip_indices(metadata, self.num_frames, **self.spacing)[0]


class ImageReader:
    """Reads an image and varies it.

    Args:
        recipe: says how it is cropped.
        images: says how large it is then.
    """

    def __init__(self, recipe: Recipe, images: ImageRecipe):
        self.augment = VJEPA2PretrainingAugmentation(
            images.crop_size, recipe.resize_scale, recipe.resize_aspect_ratio, recipe.flip
        )

    def __call__(self, image: Image) -> torch.Tensor:
        """Read an image.

        Args:
            image: the image.

        Returns:
            (1, C, S, S) float32, normalized by the statistics of ImageNet.

        Raises:
            VideoDecodeError: it cannot be read, or has not 8 bits a channel.
        """
        return self.augment(image.read()[None])


class Batch(TypedDict):
    """A batch.

    Attributes:
        inputs: arguments of the model's `forward`.
        names: of its videos or images.
        tried: number of those that were tried for it.
        unusable: why others were left out, a line each.
        of_images: whether it is one of images.
    """

    inputs: dict[str, Any]
    names: list[str]
    tried: int
    unusable: list[str]
    of_images: bool


@dataclass
class ClipBatches(torch.utils.data.Dataset):
    """Batches by their numbers, without an end.

    Attributes:
        sources: data sets, each a sequence of videos.
        weights: share of each; with one data set all videos come once before one comes again.
        read: makes a clip (T, C, S, S) of a video, such as [`ClipReader`], or (1, C, S, S) of an image.
        collator: makes a batch of clips, with masks.
        batch_size: clips of a batch.
        per_step: batches of a step of the optimizer, in all processes.
        seed: other numbers give other batches.
        of_images: whether they are images, which the model weights by numbers of their own.
    """

    sources: Sequence[Sequence[Video | Image]]
    weights: Sequence[float]
    read: Callable[[Any], torch.Tensor]
    collator: MaskCollator
    batch_size: int
    per_step: int = 1
    seed: int = 0
    of_images: bool = False

    def __post_init__(self) -> None:
        self._order: tuple[int, Sequence[int]] = -1, ()
        self.sizes = [len(source) for source in self.sources]
        self.sampler = WeightedSampler(self.sizes, self.weights, seed=self.seed)

    def __getitem__(self, number: int) -> Batch:
        """A batch.

        Args:
            number: its number, from 0.

        Raises:
            ValueError: none of the videos that were tried for a place can be used, or masks leave nothing.
        """
        samples, names, unusable = [], [], []
        for place in range(number * self.batch_size, (number + 1) * self.batch_size):
            clip, name = self._clip(place, unusable)
            samples.append({"pixel_values_videos": clip})
            names.append(name)
        self.collator.step = number // self.per_step
        with seeded(self.seed, MASKS, number):
            inputs = self.collator.model_inputs(samples)
        tried = len(names) + len(unusable)
        return Batch(inputs=inputs, names=names, tried=tried, unusable=unusable, of_images=self.of_images)

    def _clip(self, place: int, unusable: list[str]) -> tuple[torch.Tensor, str]:
        """The clip at a place of the endless row and its video's name; adds why videos were passed over."""
        reasons = []
        with seeded(self.seed, VIDEOS, place):
            index = self._index(place)
            while len(reasons) < MOST_TRIES:
                video = self._video(index)
                try:
                    return self.read(video), video.name
                except (VideoDecodeError, OSError) as error:
                    reasons.append(reason_of(video, error))
                    unusable.append(reasons[-1])
                    index = np.random.randint(sum(self.sizes))
        listed, kind = "\n".join(dict.fromkeys(reasons)), "images" if self.of_images else "videos"
        raise ValueError(f"None of {MOST_TRIES} {kind} that were tried one after the other can be used:\n{listed}")

    def _index(self, place: int) -> int:
        """Which of all videos comes at a place."""
        number, place = divmod(place, sum(self.sizes))
        if self._order[0] != number:
            if len(self.sizes) == 1:
                generator = np.random.default_rng([self.seed, ORDERS, number])
                self._order = number, generator.permutation(self.sizes[0])
            else:
                self.sampler.set_epoch(number)
                self._order = number, list(self.sampler)
        return int(self._order[1][place])

    def _video(self, index: int) -> Video | Image:
        for source, size in zip(self.sources, self.sizes, strict=True):
            if index < size:
                return source[index]
            index -= size
        raise IndexError(index)


@dataclass
class MixedBatches(torch.utils.data.Dataset):
    """Batches by their numbers, of which the first ones of every step are of images and the others of clips.

    Attributes:
        images: batches of images, of which a step has `images.per_step`.
        clips: likewise.
    """

    images: ClipBatches
    clips: ClipBatches

    @property
    def per_step(self) -> int:
        """Batches of a step of the optimizer, in all processes."""
        return self.images.per_step + self.clips.per_step

    def __getitem__(self, number: int) -> Batch:
        """A batch.

        Args:
            number: its number, from 0.

        Raises:
            ValueError: none of the videos or images that were tried for a place can be used, or masks leave nothing.
        """
        step, place = divmod(number, self.per_step)
        if place < self.images.per_step:
            return self.images[step * self.images.per_step + place]
        return self.clips[step * self.clips.per_step + place - self.images.per_step]


def reason_of(video: Video | Image, error: Exception) -> str:
    """Why a video cannot be used, with its name once."""
    text = str(error)
    return text if video.name in text else f"{video.name}: {text}"


def as_it_is(batch: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a loader makes of a batch that is one already. A function of a module can be sent to workers."""
    return batch


def load_batches(batches: ClipBatches | MixedBatches, numbers: Sequence[int], workers: int) -> Iterator[Batch]:
    """Batches of these numbers in their order, made ahead by worker processes.

    Args:
        batches: all of them.
        numbers: which.
        workers: number of processes; 0 to make them in this one.
    """
    loader = torch.utils.data.DataLoader(
        batches,
        batch_size=None,
        sampler=numbers,
        collate_fn=as_it_is,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # a loader draws a number when it begins
    )
    return iter(loader)
