"""Positions of VideoMAE's tokens: sines and cosines or a learned table, and either at another size."""

from math import pi

import torch
from torch import nn

from vidformers.layers.patchify import Grid

from .configuration_videomae import VideoMAEConfig


class VideoMAEPositions(nn.Module):
    """Positions of the tokens on the trained grid, in float32: a table of sines and cosines, or a stored parameter.

    The table is built once, stays in float32 whatever the model's dtype, and is built anew where a model leaves the
    meta device.
    """

    def __init__(self, config: VideoMAEConfig, width: int, is_learned: bool = False):
        super().__init__()
        self.grid = Grid(*config.token_grid)
        self.config = config
        self.is_learned = is_learned
        shape = (1, self.grid.num_tokens, width)
        if is_learned:
            self.table = nn.Parameter(torch.zeros(shape), requires_grad=False)
        else:
            self.register_buffer("table", torch.empty(shape, dtype=torch.float32), persistent=False)
            self._fill(self.table.device)

    def _fill(self, device: torch.device) -> None:
        self.table = alternating_sinusoids(*self.table.shape[1:], device)

    def _apply(self, fn, recurse=True):
        before = self.table
        super()._apply(fn, recurse)
        if not self.is_learned and (before.is_meta or self.table.dtype != torch.float32):
            self._fill(self.table.device)
        return self

    def forward(self, grid: Grid, interpolate: bool, device: torch.device) -> torch.Tensor:
        """Positions of all tokens of an input.

        Args:
            grid: the input's.
            interpolate: resize the table of the trained grid.
            device: the input's.

        Returns:
            (1, N, D), float32.

        Raises:
            ValueError: the grid is another than the trained one and neither way to go on is asked for.
        """
        if not self.is_learned and self.table.is_meta:
            self._fill(device)
        if not interpolate and self.config.use_input_positions:
            return alternating_sinusoids(grid.num_tokens, self.table.shape[-1], device)
        if interpolate and (torch.compiler.is_exporting() or grid != self.grid):
            return resize_position_volume(self.table, self.grid, grid)
        if grid != self.grid:
            raise ValueError(
                f"The input has {grid.t} × {grid.h} × {grid.w} tokens along time, height and width, but the positions "
                f"were trained on {self.grid.t} × {self.grid.h} × {self.grid.w} (`num_frames` = "
                f"{self.config.num_frames}, `image_size` = {self.config.image_size}). Sample and resize videos to "
                "that size; or pass `interpolate_pos_encoding=True`, which resizes the trained positions; or set "
                "`config.use_input_positions`, which computes those of a model of the input's size."
            )
        return self.table


def resize_position_volume(
    table: torch.Tensor, grid: tuple[int, int, int], size: tuple[int, int, int]
) -> torch.Tensor:
    """Resize a table over rows and columns, bicubically and without antialiasing, then over time, linearly.

    Args:
        table: (1, time·rows·columns, D).
        grid: times, rows and columns of the table.
        size: times, rows and columns wanted.

    Returns:
        (1, size[0]·size[1]·size[2], D), float32. Along an axis whose sizes are equal nothing changes.
    """
    times, rows, columns = size
    volume = table.float().unflatten(1, tuple(grid))[0]  # (grid t, grid h, grid w, D)
    frames = volume.permute(0, 3, 1, 2)
    frames = nn.functional.interpolate(frames, size=(rows, columns), mode="bicubic", align_corners=False)
    frames = frames.flatten(1).T[None]  # (1, D·h·w, grid t)
    frames = nn.functional.interpolate(frames, size=times, mode="linear", align_corners=False)[0].T
    return frames.unflatten(1, (-1, rows * columns)).transpose(1, 2).reshape(1, times * rows * columns, -1)


def alternating_sinusoids(count: int, dim: int, device: torch.device | None = None) -> torch.Tensor:
    """Sines in even channels and cosines in odd ones, of positions 0 to count - 1, at 10000^(-2i / dim) for pair i.

    Angles are taken in float64, because float32 keeps but four decimals of a position beyond a thousand.

    Args:
        count: number of positions.
        dim: number of channels.
        device: of the result.

    Returns:
        (1, count, dim), float32.
    """
    if device is not None and device.type == "meta":
        return torch.empty(1, count, dim, dtype=torch.float32, device=device)
    pairs = torch.arange((dim + 1) // 2, dtype=torch.float64, device="cpu")
    positions = torch.arange(count, dtype=torch.float64, device="cpu")
    angles = positions[:, None] * 10000.0 ** (-2 * pairs / dim)
    angles = angles.remainder(2 * pi).float()
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[None, :, :dim].to(device)
