"""From uint8 frames to model input: resize, crop, rescale, normalise, pad.

Frames are tensors of shape (..., channels, height, width), in any memory layout: frames stored channels last and
permuted resize fastest, so nothing here asks for contiguity. Resizing works on uint8 where the input is uint8; that,
not the arithmetic in floats, is what torchvision does, and the result is the same to the bit.
"""

from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from transformers.utils import logging


logger = logging.get_logger(__name__)

# PIL's numbers, which the published JSON files hold.
_MODES = {0: "nearest-exact", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def resize_size(height: int, width: int, size) -> tuple[int, int]:
    """(height, width) in pixels after resizing, as transformers computes it.

    `size` is a mapping or `SizeDict` with `height` and `width`; `shortest_edge`, which the shorter side becomes;
    `shortest_edge` and `longest_edge`, a limit on the longer side; or `max_height` and `max_width`, a box to fit in.
    """
    wanted = {key: value for key, value in dict(size).items() if value}
    if set(wanted) == {"height", "width"}:
        return wanted["height"], wanted["width"]
    if set(wanted) == {"max_height", "max_width"}:
        scale = min(wanted["max_height"] / height, wanted["max_width"] / width)
        return int(height * scale), int(width * scale)
    if "shortest_edge" not in wanted or set(wanted) - {"shortest_edge", "longest_edge"}:
        raise ValueError(
            "Expected size with height and width, shortest_edge (and longest_edge), or max_height and max_width, got "
            f"{wanted}."
        )
    short, long = sorted((height, width))
    edge = wanted["shortest_edge"]
    limit = wanted.get("longest_edge")
    if limit is None or long / short * edge <= limit:
        resized = edge, (long if edge == short else int(edge * long / short))
    else:
        exact_edge = limit * short / long
        edge = int(round(exact_edge))
        resized = edge, (long if edge == short else int(exact_edge * long / short))
    return resized if height <= width else resized[::-1]


def resize(frames: torch.Tensor, size: tuple[int, int], resample: int = 2, antialias: bool = True) -> torch.Tensor:
    """Resize to `size` = (height, width) pixels, by default with antialiasing; dtype and device stay.

    `resample` is PIL's number: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic. Floating-point values are not clipped;
    integers are rounded, and uint8 is clipped to 0…255, which bicubic and Lanczos overshoot. As in transformers, what
    has no Lanczos (devices other than a CPU, older releases of torch) gets bicubic, with a warning.
    """
    if resample not in _MODES:
        raise ValueError(
            f"Expected resample to be 0 (nearest), 1 (Lanczos), 2 (bilinear) or 3 (bicubic), got {resample!r}. Other "
            "filters have no tensor implementation."
        )
    if min(size) < 1:
        raise ValueError(f"Cannot resize {frames.shape[-2]}x{frames.shape[-1]} frames to {size[0]}x{size[1]}.")
    if frames.shape[-2:] == tuple(size):
        return frames
    mode = _MODES[resample]
    if mode == "lanczos" and not (frames.is_cpu and antialias and _has_lanczos()):
        logger.warning_once("Lanczos' filter needs torch 2.13 and frames on a CPU; the bicubic one takes its place.")
        mode = "bicubic"
    options = {} if mode == "nearest-exact" else {"antialias": antialias, "align_corners": False}
    images = frames.flatten(0, -4) if frames.ndim > 4 else frames
    native = frames.dtype in (torch.float32, torch.float64) or (frames.dtype == torch.uint8 and frames.is_cpu)
    resized = F.interpolate(images if native else images.float(), size=size, mode=mode, **options)
    if not native:
        if frames.dtype == torch.uint8:
            resized = resized.clamp_(0, 255)
        resized = (resized if frames.is_floating_point() else resized.round_()).to(frames.dtype)
    return resized.unflatten(0, frames.shape[:-3]) if frames.ndim > 4 else resized


@cache
def _has_lanczos() -> bool:
    """Whether this release of torch has Lanczos' filter."""
    try:
        F.interpolate(torch.zeros(1, 1, 4, 4), size=(2, 2), mode="lanczos", antialias=True)
    except (NotImplementedError, ValueError):
        return False
    return True


def center_crop(frames: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The middle `size` = (height, width) pixels, a view; zeros around frames that are smaller.

    An odd remainder goes to the bottom and right, in cropping as in padding.
    """
    height, width = frames.shape[-2:]
    missing_height, missing_width = max(size[0] - height, 0), max(size[1] - width, 0)
    if missing_height or missing_width:
        left, top = missing_width // 2, missing_height // 2
        frames = F.pad(frames, (left, missing_width - left, top, missing_height - top))
        height, width = frames.shape[-2:]
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return frames[..., top : top + size[0], left : left + size[1]]


def three_crops(frames: torch.Tensor) -> torch.Tensor:
    """Squares at the beginning, in the middle and at the end of the longer side: the views of a test of VideoMAE.

    Resize the shorter side before. VideoMAE's code at commit 14ef8d8, `kinetics.py`, takes the same starts.

    Args:
        frames: (frames, channels, height, width).

    Returns:
        (3, frames, channels, side, side), with the shorter side; left, middle, right, or top, middle, bottom.
    """
    height, width = frames.shape[-2:]
    side, rest = min(height, width), abs(height - width)
    axis = -2 if height > width else -1
    return torch.stack([frames.narrow(axis, start, side) for start in (0, rest // 2, rest)])


def rescale_and_normalize(
    frames: torch.Tensor,
    scale: float | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """`(frames * scale - mean) / std` over channels, in float32; without mean only the scale, without both a no-op.

    With both, mean and std are divided by the scale beforehand, as in transformers. `out`, a float32 tensor of the
    frames' shape, takes a normalised result, which spares a copy where clips are stacked.
    """
    if mean is None:
        return frames if scale is None else frames * scale
    mean, std = (_per_channel(name, value, frames) for name, value in (("mean", mean), ("std", std)))
    if scale is not None:
        mean, std = mean * (1.0 / scale), std * (1.0 / scale)
    if (std == 0).any():
        raise ValueError(f"Expected a standard deviation without zeros, got {std.flatten().tolist()}.")
    if out is None:
        out = torch.empty(frames.shape, dtype=torch.float32, device=frames.device)
    return out.copy_(frames).sub_(mean).div_(std)


def _per_channel(name: str, value: float | Sequence[float] | None, frames: torch.Tensor) -> torch.Tensor:
    channels = frames.shape[-3]
    tensor = torch.tensor(value, dtype=torch.float32, device=frames.device)
    if tensor.numel() not in (1, channels):
        raise ValueError(
            f"Expected one {name} or one for each of the frames' {channels} channels, got {tensor.numel()}. "
            "do_convert_rgb=True makes grey or transparent frames RGB."
        )
    return tensor.view(-1, 1, 1)


def pad_videos(videos: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Videos of different lengths as one batch, zeros after the end.

    Args:
        videos: (num_frames, channels, height, width) each, alike but for the first.

    Returns:
        (batch, longest, channels, height, width), and the bool mask (batch, longest), True where a frame is real.
    """
    lengths = torch.tensor([len(video) for video in videos], device=videos[0].device)
    mask = torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]
    return torch.nn.utils.rnn.pad_sequence(list(videos), batch_first=True), mask
