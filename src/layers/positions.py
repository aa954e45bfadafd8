"""Tables of absolute positions: learned ones at other sizes, and sinusoids. All are computed in float32."""

from math import log

import torch
from torch import nn


def resize_position_grid(
    table: torch.Tensor, grid: tuple[int, int], size: tuple[int, int], *, antialias: bool = True
) -> torch.Tensor:
    """Resize a learned table over rows and columns, bilinearly.

    Args:
        table: (1, rows·columns, D).
        grid: rows and columns of the table.
        size: rows and columns wanted.
        antialias: whether a table that shrinks is smoothed first.

    Returns:
        (1, size[0]·size[1], D), in the dtype of `table`. It is the table itself where the sizes are equal. With
        antialiasing equal to `jax.image.resize(…, "bilinear")` up to rounding.
    """
    if not torch.compiler.is_exporting() and tuple(grid) == tuple(size):
        return table
    image = table.float().unflatten(1, tuple(grid)).permute(0, 3, 1, 2)  # (1, D, rows, columns)
    resized = nn.functional.interpolate(image, size=tuple(size), mode="bilinear", antialias=antialias)
    return resized.flatten(2).transpose(1, 2).to(table.dtype)


def resize_positions(table: torch.Tensor, length: int) -> torch.Tensor:
    """Resize a learned table (1, positions, D) over its only axis: (1, length, D), as [`resize_position_grid`]."""
    return resize_position_grid(table, (table.shape[1], 1), (length, 1))


def sinusoidal_positions(positions: torch.Tensor, dim: int, longest: float = 10000.0) -> torch.Tensor:
    """Sines, then cosines, of positions at wavelengths from 2π to 2π·`longest`, both ends included.

    Args:
        positions: integers or floats of any shape.
        dim: even number of channels.
        longest: the longest wavelength is 2π·`longest`.

    Returns:
        (*positions.shape, dim), float32.
    """
    count = dim // 2
    steps = torch.arange(count, dtype=torch.float32, device=positions.device)
    frequencies = (steps * (-log(longest) / max(count - 1, 1))).exp()
    angles = positions.float()[..., None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
