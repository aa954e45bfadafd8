"""Rotary positions over time, height and width.

Each axis turns its own slice of a head's channels; channels that the three slices leave over are not turned. Angles
are computed in float32 whatever the model's dtype: in bfloat16 neighboring positions would coincide.
"""

from functools import cache
from importlib.util import find_spec
from typing import Literal, NamedTuple

import torch
from transformers.utils import logging

from .modules import is_watched


logger = logging.get_logger(__name__)


Pairing = Literal["tiled", "interleaved"]


class RotaryTable(NamedTuple):
    """What turns queries and keys.

    Attributes:
        own: factors of the channels, (B or 1, N, 1, head_dim).
        neighbor: factors of their neighbors in the pair, of the same shape.
        is_rotation: whether both channels of a pair turn by one angle, as complex numbers do.
    """

    own: torch.Tensor
    neighbor: torch.Tensor
    is_rotation: bool


def rotary_table(
    positions: tuple[torch.Tensor, ...],
    head_dim: int,
    *,
    pairing: Pairing,
    dtype: torch.dtype,
    base: float = 10000.0,
) -> RotaryTable:
    """Build the factors for one forward pass; every block and head shares them.

    Args:
        positions: one tensor (B or 1, N) an axis, integers or floats.
        head_dim: channels of a head. Every axis turns `2·((head_dim // 3) // 2)` of them with three axes.
        pairing: which angle meets which channel of an axis' slice, whose neighbors 2i and 2i+1 form the pairs.
            `"interleaved"` gives both of a pair the angle i, a true rotation. `"tiled"` lays the angles out twice one
            after the other, so that the two of a pair get different angles.
        dtype: dtype of the result.
        base: the wavelength of the slowest angle is 2π·base positions.

    Returns:
        Tables for [`apply_rotary`].
    """
    num_pairs = (head_dim // len(positions)) // 2
    steps = torch.arange(num_pairs, dtype=torch.float32, device=positions[0].device)
    frequencies = 1.0 / base ** (steps / num_pairs)
    cos, sin = [], []
    for position in positions:
        angles = position.float()[..., None] * frequencies  # (B or 1, N, pairs)
        angles = torch.cat([angles, angles], -1) if pairing == "tiled" else angles.repeat_interleave(2, -1)
        cos.append(angles.cos())
        sin.append(angles.sin())
    rest = head_dim - 2 * num_pairs * len(positions)
    cos = torch.nn.functional.pad(torch.cat(cos, -1), (0, rest), value=1.0)
    sin = torch.nn.functional.pad(torch.cat(sin, -1), (0, rest))
    signs = torch.ones(head_dim, device=sin.device)
    signs[::2] = -1.0
    return RotaryTable(cos[:, :, None].to(dtype), (sin * signs)[:, :, None].to(dtype), pairing == "interleaved")


def apply_rotary(x: torch.Tensor, table: RotaryTable) -> torch.Tensor:
    """Turn queries or keys.

    Args:
        x: (B, N, heads, head_dim).
        table: the factors, of `x`'s dtype or a wider one, in which the turn is computed then.

    Returns:
        A tensor of `x`'s shape and dtype.
    """
    if _has_kernel_for(x):
        from .rope_kernel import turn

        return turn(x, table.own.contiguous(), table.neighbor.contiguous())
    if x.device.type == "cpu" and table.is_rotation and table.own.dtype == torch.float32 and _is_ordinary(x):
        return _rotate(x, table)
    return _turn(x, table)


def _turn(x: torch.Tensor, table: RotaryTable) -> torch.Tensor:
    neighbors = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return torch.addcmul(x * table.own, neighbors, table.neighbor).to(x.dtype)


def _rotate(x: torch.Tensor, table: RotaryTable) -> torch.Tensor:
    """Pairs as complex numbers: no pass of its own that swaps neighbors, which takes a CPU most of a turn's time."""
    dtype = torch.promote_types(x.dtype, table.own.dtype)
    turned = x.to(dtype, copy=True, memory_format=torch.contiguous_format)
    pairs = torch.view_as_complex(turned.unflatten(-1, (-1, 2)))
    pairs.mul_(torch.complex(table.own[..., ::2], table.neighbor[..., 1::2]))
    return turned.to(x.dtype)


def _is_ordinary(x: torch.Tensor) -> bool:
    """Whether nothing follows the operations: no gradients, no trace, no class of the tensor's own."""
    return not (is_watched(x) or (x.requires_grad and torch.is_grad_enabled()))


def _has_kernel_for(x: torch.Tensor) -> bool:
    """Whether one kernel turns this tensor: on a GPU, if channels of a token lie side by side."""
    return x.is_cuda and _is_ordinary(x) and x.stride()[2:] == (x.shape[3], 1) and _runs_kernels(x.device)


@cache
def _runs_kernels(device: torch.device) -> bool:
    """Whether the kernel can be compiled and run on a device, tried once."""
    if find_spec("triton") is None:
        return False
    token = torch.zeros(1, 1, 1, 2, device=device)
    try:
        from .rope_kernel import turn

        turn(token, token, token)
    except Exception as error:
        logger.warning(f"Rotary positions can't be computed by a kernel here; slower operations stand in: {error}")
        return False
    return True
