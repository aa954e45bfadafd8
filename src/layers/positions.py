"""Tables of absolute positions: learned ones at other sizes, and sinusoids. All are computed in float32."""

from math import log, pi

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
