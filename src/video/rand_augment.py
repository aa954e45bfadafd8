"""RandAugment for clips: a few drawn changes of color and shape, the same for all frames.

Paper: https://arxiv.org/abs/1909.13719. The setting is that of V-JEPA 2's probes: 4 changes, of which each happens in
half of all clips, with magnitudes of about 7 of 10, bicubic. Pillow does the changes.
"""

import random
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps


NUM_CHANGES, PROBABILITY, MAGNITUDE, DEVIATION, MOST = 4, 0.5, 7, 0.5, 10
GRAY = (128, 128, 128)

Change = Callable[[Image.Image], Image.Image]


def rand_augment(frames: torch.Tensor, translate: int) -> torch.Tensor:
    """Change a clip.

    Args:
        frames: uint8 (T, H, W, 3).
        translate: most pixels by which frames move.

    Returns:
        uint8 (T, H, W, 3).
    """
    drawn = [random.choice(CHANGES) for _ in range(NUM_CHANGES)]
    changes = []
    for make in drawn:
        if random.random() <= PROBABILITY:
            strength = min(max(random.gauss(MAGNITUDE, DEVIATION), 0), MOST) / MOST
            changes.append(make(strength, translate))
    pictures = []
    for picture in map(Image.fromarray, frames.numpy()):
        for change in changes:
            picture = change(picture)
        pictures.append(np.asarray(picture))
    return torch.from_numpy(np.stack(pictures))


def draw_sign() -> int:
    """1 or -1."""
    return -1 if random.random() > 0.5 else 1


def _enhance(enhancer: type, strength: float, translate: int) -> Change:
    factor = 1 + draw_sign() * 0.9 * strength
    return lambda picture: enhancer(picture).enhance(factor)


def _shear(down: bool, strength: float, translate: int) -> Change:
    factor = draw_sign() * 0.3 * strength
    return _affine((1, 0, 0, factor, 1, 0) if down else (1, factor, 0, 0, 1, 0))


def _move(down: bool, strength: float, translate: int) -> Change:
    pixels = draw_sign() * translate * strength
    return _affine((1, 0, 0, 0, 1, pixels) if down else (1, 0, pixels, 0, 1, 0))


def _affine(matrix: tuple[float, ...]) -> Change:
    def change(picture: Image.Image) -> Image.Image:
        options = {"resample": Image.Resampling.BICUBIC, "fillcolor": GRAY}
        return picture.transform(picture.size, Image.Transform.AFFINE, matrix, **options)

    return change


def _rotate(strength: float, translate: int) -> Change:
    degrees = draw_sign() * 30 * strength
    return lambda picture: picture.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=GRAY)


def _posterize(strength: float, translate: int) -> Change:
    bits = 4 - int(4 * strength)
    return lambda picture: ImageOps.posterize(picture, max(bits, 1))


def _solarize(strength: float, translate: int) -> Change:
    threshold = 256 - int(256 * strength)
    return lambda picture: ImageOps.solarize(picture, threshold)


def _brighten_dark(strength: float, translate: int) -> Change:
    added = int(110 * strength)
    table = [min(255, value + added) if value < 128 else value for value in range(256)]
    return lambda picture: picture.point(table * 3)


def _plain(change: Change, strength: float, translate: int) -> Change:
    return change


CHANGES: tuple[Callable[[float, int], Change], ...] = (
    *(partial(_plain, change) for change in (ImageOps.autocontrast, ImageOps.equalize, ImageOps.invert)),
    *(partial(make, down) for make in (_shear, _move) for down in (False, True)),
    *(
        partial(_enhance, each)
        for each in (ImageEnhance.Color, ImageEnhance.Contrast, ImageEnhance.Brightness, ImageEnhance.Sharpness)
    ),
    _rotate,
    _posterize,
    _solarize,
    _brighten_dark,
)
