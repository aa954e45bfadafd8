"""Tables of absolute positions at other sizes."""

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
