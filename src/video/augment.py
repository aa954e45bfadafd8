"""How V-JEPA 2 varies the frames that it and its probes learn from.

Numbers are drawn as in the original, from the global generators of Python, NumPy and PyTorch, so that the same seeds
give the same pixels.

Source: facebookresearch/vjepa2 at c2963a47, `app/vjepa/transforms.py`, `evals/video_classification_frozen/utils.py`,
`src/datasets/utils/video/transforms.py` and `randerase.py`.
"""

import math
import random

import numpy as np
import torch
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from .evaluation_views import check_frames
from .rand_augment import rand_augment


Range = tuple[float, float]
MEAN, STD = (torch.tensor(each)[:, None, None, None] for each in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))


class VJEPA2PretrainingAugmentation:
    """A random crop, resized to a square, and a random flip: the same for all frames of a clip.

    Args:
        crop_size: pixels of a side.
        random_resize_scale: least and greatest share of the area. Of more than 1, no crop fits, and the largest one in
            the middle is taken.
        random_resize_aspect_ratio: least and greatest width divided by height.
        random_horizontal_flip: whether half of all clips are mirrored.
        motion_shift: let the crop move from one place to another in the course of the clip.
    """

    def __init__(
        self,
        crop_size: int,
        random_resize_scale: Range = (0.3, 1.0),
        random_resize_aspect_ratio: Range = (3 / 4, 4 / 3),
        random_horizontal_flip: bool = True,
        motion_shift: bool = False,
    ):
        check_ranges(crop_size, random_resize_scale, random_resize_aspect_ratio)
        self.crop_size, self.motion_shift = crop_size, motion_shift
        self.scale, self.ratio = random_resize_scale, random_resize_aspect_ratio
        self.random_horizontal_flip = random_horizontal_flip

    def __call__(self, frames: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Vary a clip.

        Args:
            frames: uint8 (T, H, W, 3).

        Returns:
            (T, C, S, S) float32, normalized by the statistics of ImageNet.
        """
        video = check_frames(frames).permute(3, 0, 1, 2).float()  # (C, T, H, W), from 0 to 255
        crop = _moving_crop if self.motion_shift else _crop
        video = crop(video, self.crop_size, self.scale, self.ratio)
        if self.random_horizontal_flip:
            video = _flip(video)
        return ((video - 255.0 * MEAN) / (255.0 * STD)).transpose(0, 1)


class VJEPA2ProbeAugmentation:
    """What probes learn from: RandAugment, a random crop and a box of noise, the same for all frames of a clip.

    Args:
        crop_size: pixels of a side.
        random_resize_scale: least and greatest share of the area.
        random_resize_aspect_ratio: least and greatest width divided by height.
        random_horizontal_flip: whether half of all clips are mirrored, as for action anticipation.
        reprob: share of the clips that get a box of noise.
        auto_augment: whether RandAugment changes colors and shapes.
    """

    def __init__(
        self,
        crop_size: int,
        random_resize_scale: Range = (0.08, 1.0),
        random_resize_aspect_ratio: Range = (3 / 4, 4 / 3),
        random_horizontal_flip: bool = False,
        reprob: float = 0.25,
        auto_augment: bool = True,
    ):
        check_ranges(crop_size, random_resize_scale, random_resize_aspect_ratio)
        if not 0 <= reprob <= 1:
            raise ValueError(f"Expected `reprob` from 0 to 1, got {reprob}.")
        self.crop_size, self.reprob, self.auto_augment = crop_size, reprob, auto_augment
        self.scale, self.ratio = random_resize_scale, random_resize_aspect_ratio
        self.random_horizontal_flip = random_horizontal_flip

    def __call__(self, frames: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Vary a clip.

        Args:
            frames: uint8 (T, H, W, 3).

        Returns:
            (T, C, S, S) float32, normalized by the statistics of ImageNet.
        """
        frames = check_frames(frames)
        if self.auto_augment:
            frames = rand_augment(frames, translate=int(0.45 * self.crop_size))
        video = frames.permute(3, 0, 1, 2).float() / 255  # (C, T, H, W)
        video = _crop((video - MEAN) / STD, self.crop_size, self.scale, self.ratio)
        if self.random_horizontal_flip:
            video = _flip(video)
        video = video.transpose(0, 1).contiguous()  # (T, C, S, S)
        if self.reprob > 0 and random.random() <= self.reprob:
            erase(video)
        return video


def check_ranges(crop_size: int, *ranges: Range) -> None:
    """A ValueError unless a crop can be drawn of these."""
    if crop_size < 1 or any(not 0 < low <= high for low, high in ranges):
        raise ValueError(
            f"Expected `crop_size` of at least 1, and ranges of scale and ratio with 0 < low ≤ high; got {crop_size}, "
            f"{ranges}."
        )


def _crop(video: torch.Tensor, size: int, scale: Range, ratio: Range) -> torch.Tensor:
    """A drawn box of a video (C, T, H, W), resized without antialiasing."""
    top, left, height, width = draw_box(*video.shape[2:], scale, ratio)
    return _resized(video[:, :, top : top + height, left : left + width], size)


def _moving_crop(video: torch.Tensor, size: int, scale: Range, ratio: Range) -> torch.Tensor:
    """Of each frame of a video (C, T, H, W) a box on the way from one drawn box to another."""
    first, last = (draw_box(*video.shape[2:], scale, ratio) for _ in range(2))
    steps = video.shape[1]
    path = torch.stack([torch.linspace(a, b, steps) for a, b in zip(first, last, strict=True)], dim=1).int().tolist()
    return torch.cat(
        [
            _resized(video[:, index : index + 1, top : top + height, left : left + width], size)
            for index, (top, left, height, width) in enumerate(path)
        ],
        dim=1,
    )


def _resized(video: torch.Tensor, size: int) -> torch.Tensor:
    return torch.nn.functional.interpolate(video, size=(size, size), mode="bilinear", align_corners=False)


def draw_box(height: int, width: int, scale: Range, ratio: Range) -> tuple[int, int, int, int]:
    """Top, left, height and width of a drawn box; after ten that don't fit, the largest in the middle."""
    for _ in range(10):
        area = random.uniform(*scale) * height * width
        aspect = math.exp(random.uniform(math.log(ratio[0]), math.log(ratio[1])))
        columns, rows = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        np.random.uniform()  # The original draws whether to swap sides, and doesn't.
        if 0 < columns <= width and 0 < rows <= height:
            top = random.randint(0, height - rows)
            return top, random.randint(0, width - columns), rows, columns
    shape = width / height
    rows = round(width / min(ratio)) if shape < min(ratio) else height
    columns = round(height * max(ratio)) if shape > max(ratio) else width
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def _flip(video: torch.Tensor) -> torch.Tensor:
    return video.flip(-1) if np.random.uniform() < 0.5 else video


def erase(video: torch.Tensor) -> None:
    """Put noise in a drawn box of all frames of a clip (T, C, S, S), in place; other noise in every frame."""
    channels, height, width = video.shape[1:]
    for _ in range(100):
        area = random.uniform(0.02, 1 / 3) * (height * width)
        aspect = math.exp(random.uniform(math.log(0.3), math.log(1 / 0.3)))
        rows, columns = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if columns < width and rows < height:
            top, left = random.randint(0, height - rows), random.randint(0, width - columns)
            for frame in video:
                frame[:, top : top + rows, left : left + columns] = torch.empty(channels, rows, columns).normal_()
            return
