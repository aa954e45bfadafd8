"""Images for V-JEPA 2's probes: a crop, a flip, AutoAugment and a box of noise in training, the middle in a test.

Numbers are drawn as in the original, from the global generators of Python and PyTorch. Pillow changes the pixels.

Paper: https://arxiv.org/abs/1805.09501. Source: facebookresearch/vjepa2 at c2963a47,
`evals/image_classification_frozen/eval.py`, which varies by timm's `create_transform` with the paper's policy for
ImageNet, and tests by torchvision's `Resize` and `CenterCrop`.
"""

import random
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from transformers.image_utils import IMAGENET_DEFAULT_MEAN

from .augment import MEAN, STD, check_ranges, draw_box, erase
from .evaluation_views import check_frames
from .rand_augment import Change, draw_sign


SCALE, RATIO, ERASED = (0.08, 1.0), (3 / 4, 4 / 3), 0.25
BICUBIC = Image.Resampling.BICUBIC
FILL = tuple(round(255 * value) for value in IMAGENET_DEFAULT_MEAN)

CHANGES: dict[str, Callable[[float], Change]] = {
    "autocontrast": lambda strength: ImageOps.autocontrast,
    "equalize": lambda strength: ImageOps.equalize,
    "invert": lambda strength: ImageOps.invert,
    "color": lambda strength: _enhanced(ImageEnhance.Color, strength),
    "contrast": lambda strength: _enhanced(ImageEnhance.Contrast, strength),
    "sharpness": lambda strength: _enhanced(ImageEnhance.Sharpness, strength),
    "posterize": lambda strength: _posterized(4 + int(4 * strength)),
    "solarize": lambda strength: lambda image: ImageOps.solarize(image, int(256 * strength)),
    "rotate": lambda strength: _rotated(draw_sign() * 30 * strength),
    "shear": lambda strength: _sheared(draw_sign() * 0.3 * strength),
}
"""What a change does with a strength from 0 to 1. The smaller it is, the less remains of a posterized image."""

_TABLE = """
    posterize 40 8 rotate 60 9        | solarize 60 5 autocontrast 60 5  | equalize 80 8 equalize 60 3
    posterize 60 7 posterize 60 6     | equalize 40 7 solarize 20 4      | equalize 40 4 rotate 80 8
    solarize 60 3 equalize 60 7       | posterize 80 5 equalize 100 2    | rotate 20 3 solarize 60 8
    equalize 60 8 posterize 40 6      | rotate 80 8 color 40 0           | rotate 40 9 equalize 60 2
    equalize 0 7 equalize 80 8        | invert 60 4 equalize 100 8       | color 60 4 contrast 100 8
    rotate 80 8 color 100 2           | color 80 8 solarize 80 7         | sharpness 40 7 invert 60 8
    shear 60 5 equalize 100 9         | color 40 0 equalize 60 3         | equalize 40 7 solarize 20 4
    solarize 60 5 autocontrast 60 5   | invert 60 4 equalize 100 8       | color 60 4 contrast 100 8
    equalize 80 8 equalize 60 3
"""
"""The policy for ImageNet in the paper's appendix: pairs of changes, each with its probability in percent and its
magnitude of 10. Pairs that stand there twice are drawn twice as often."""


def _policy() -> list[list[tuple[str, float, float]]]:
    """Pairs of changes: name, probability and strength of each."""
    pairs = [pair.split() for line in _TABLE.strip().splitlines() for pair in line.split("|")]
    return [
        [(name, int(percent) / 100, int(tenths) / 10) for name, percent, tenths in (cells[:3], cells[3:])]
        for cells in pairs
    ]


POLICY = _policy()


class VJEPA2ImageAugmentation:
    """What probes learn from images by: a random crop, a flip, a drawn pair of changes and a box of noise.

    Args:
        crop_size: pixels of a side.
    """

    def __init__(self, crop_size: int):
        check_ranges(crop_size, SCALE, RATIO)
        self.crop_size = crop_size

    def __call__(self, frames: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Vary an image.

        Args:
            frames: uint8 (1, H, W, 3).

        Returns:
            (1, C, S, S) float32, normalized by the statistics of ImageNet.
        """
        (frame,) = check_frames(frames).numpy()
        top, left, height, width = draw_box(*frame.shape[:2], SCALE, RATIO)
        image = Image.fromarray(frame[top : top + height, left : left + width])
        image = image.resize((self.crop_size, self.crop_size), BICUBIC)
        if torch.rand(1) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = _normalized(auto_augment(image))
        if random.random() <= ERASED:
            erase(pixels)
        return pixels


class VJEPA2ImageView:
    """What probes are tested on with images: the middle of each, whose shorter side was made a seventh larger.

    Args:
        crop_size: pixels of a side.
    """

    def __init__(self, crop_size: int):
        check_ranges(crop_size)
        self.crop_size = crop_size

    def __call__(self, frames: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Cut the middle out of an image.

        Args:
            frames: uint8 (1, H, W, 3).

        Returns:
            (1, C, S, S) float32, normalized by the statistics of ImageNet.
        """
        (frame,) = check_frames(frames).numpy()
        image, size, short = Image.fromarray(frame), self.crop_size, int(self.crop_size * 256 / 224)
        sides = [short * side / min(image.size) for side in image.size]
        image = image.resize([int(side) for side in sides], Image.Resampling.BILINEAR)
        left, top = (round((side - size) / 2) for side in image.size)  # Halves are rounded to even numbers.
        return _normalized(image.crop((left, top, left + size, top + size)))


def _normalized(image: Image.Image) -> torch.Tensor:
    """(1, C, H, W)."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    return (pixels - MEAN[:, 0]) / STD[:, 0]


def auto_augment(image: Image.Image) -> Image.Image:
    """Make a drawn pair of changes of the policy, each with its probability."""
    for name, probability, strength in random.choice(POLICY):
        if probability == 1 or random.random() <= probability:
            image = CHANGES[name](strength)(image)
    return image


def _enhanced(enhancer: type, strength: float) -> Change:
    return lambda image: enhancer(image).enhance(0.1 + 1.8 * strength)


def _posterized(bits: int) -> Change:
    return lambda image: ImageOps.posterize(image, bits)


def _rotated(degrees: float) -> Change:
    return lambda image: image.rotate(degrees, BICUBIC, fillcolor=FILL)


def _sheared(factor: float) -> Change:
    matrix = (1, factor, 0, 0, 1, 0)
    return lambda image: image.transform(image.size, Image.Transform.AFFINE, matrix, BICUBIC, fillcolor=FILL)
