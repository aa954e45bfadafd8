"""The crops on which V-JEPA 2's probes are tested, with the pixels of the original's.

Source: facebookresearch/vjepa2 at c2963a47, `evals/video_classification_frozen/utils.py`. It resizes by OpenCV, whose
bilinear interpolation of bytes computes with integers.
"""

import numpy as np
import torch
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD


class VJEPA2EvaluationViews:
    """Resizes frames and cuts squares out of them, normalized by the statistics of ImageNet.

    Args:
        crop_size: pixels of a square's side.
        num_views: number of squares along the longer side, which the shorter one fits. A single one is cut out of the
            middle, after frames were resized a seventh larger.
    """

    def __init__(self, crop_size: int, num_views: int = 3):
        if crop_size < 1 or num_views < 1:
            raise ValueError(f"Expected `crop_size` and `num_views` of at least 1, got {crop_size} and {num_views}.")
        self.crop_size, self.num_views = crop_size, num_views

    def __call__(self, frames: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Cut views.

        Args:
            frames: uint8 (T, H, W, 3).

        Returns:
            (views, T, C, S, S) float32.
        """
        frames, size = check_frames(frames).numpy(), self.crop_size
        short = size if self.num_views > 1 else int(size * 256 / 224)
        height, width = frames.shape[1:3]
        resized = (int(short * height / width), short) if width < height else (short, int(short * width / height))
        frames = resize_as_opencv(frames, resized)
        if self.num_views == 1:
            # Halves are rounded to even numbers.
            top, left = (round((side - size) / 2) for side in resized)
            views = [frames[:, top : top + size, left : left + size]]
        else:
            step = (max(resized) - size) // (self.num_views - 1)
            starts = [index * step for index in range(self.num_views)]
            along = 1 if resized[0] > resized[1] else 2
            views = [frames.take(range(start, start + size), axis=along) for start in starts]
        pixels = torch.from_numpy(np.stack(views)).permute(0, 1, 4, 2, 3).float() / 255
        return (pixels - _column(IMAGENET_DEFAULT_MEAN)) / _column(IMAGENET_DEFAULT_STD)


def check_frames(frames: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Frames as a tensor on the CPU; a ValueError unless they are uint8 (T, H, W, 3)."""
    frames = torch.as_tensor(frames).cpu()
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(f"Expected uint8 frames (T, height, width, 3), got {frames.dtype} {tuple(frames.shape)}.")
    return frames


def resize_as_opencv(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize bytes by bilinear interpolation without antialiasing, to the bit as OpenCV.

    Args:
        frames: uint8 (T, H, W, C).
        size: new height and width.

    Returns:
        uint8 (T, height, width, C).
    """
    (top, bottom), rows = _neighbors(frames.shape[1], size[0])
    (left, right), columns = _neighbors(frames.shape[2], size[1])
    frames = frames.astype(np.int32)
    across = frames[:, :, left] * columns[0][:, None] + frames[:, :, right] * columns[1][:, None]
    first, second = (
        (across[:, index] >> 4) * rows[side][:, None, None] >> 16 for side, index in ((0, top), (1, bottom))
    )
    return ((first + second + 2) >> 2).clip(0, 255).astype(np.uint8)


def _neighbors(old: int, new: int) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """For each new pixel of a side the old ones on both sides, and their weights of together 2048."""
    places = ((np.arange(new) + 0.5) * (old / new) - 0.5).astype(np.float32)
    first = np.floor(places).astype(np.int64)
    share = np.where((first < 0) | (first >= old - 1), np.float32(0), places - first.astype(np.float32))
    first = first.clip(0, old - 1)
    weights = tuple(np.rint(part * np.float32(2048)).astype(np.int32) for part in (1 - share, share))
    return (first, (first + 1).clip(0, old - 1)), weights


def _column(values: list[float]) -> torch.Tensor:
    return torch.tensor(values)[:, None, None]
