"""VideoMAE's tables of positions beside plain references."""

import math

import pytest
import torch
from torch import nn

from tests.harness.compare import assert_close
from tests.harness.tolerances import REORDERED
from vidformers.models.videomae.positions_videomae import alternating_sinusoids, resize_position_volume


def seeded(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dim", [6, 7])
def test_alternating_sinusoids(dim):
    """Far positions too: float32 angles would be off by 1e-3 there."""
    table = alternating_sinusoids(20000, dim)
    assert table.dtype == torch.float32
    for position in (0, 1, 777, 19999):
        angles = [position / 10000 ** (2 * (channel // 2) / dim) for channel in range(dim)]
        expected = [math.cos(angle) if channel % 2 else math.sin(angle) for channel, angle in enumerate(angles)]
        assert_close("table", {"t": torch.tensor(expected)}, {"t": table[0, position]}, REORDERED)


def test_resized_volume():
    """A table that is linear along time and constant in space: only its ends know that it was resized."""
    times = torch.arange(4.0)[:, None, None, None].expand(4, 3, 5, 2)
    table = times.reshape(1, 60, 2)
    assert torch.equal(resize_position_volume(table, (4, 3, 5), (4, 3, 5)), table)
    resized = resize_position_volume(table, (4, 3, 5), (8, 2, 7)).view(8, 2, 7, 2)
    expected = torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])[:, None, None, None].expand(8, 2, 7, 2)
    assert_close("time", {"t": expected}, {"t": resized}, REORDERED)

    picture = seeded(1, 15, 4)  # 3 rows of 5
    bicubic = nn.functional.interpolate(picture.view(1, 3, 5, 4).permute(0, 3, 1, 2), size=(6, 2), mode="bicubic")
    resized = resize_position_volume(picture, (1, 3, 5), (1, 6, 2))
    assert_close("space", {"t": bicubic.flatten(2).transpose(1, 2)}, {"t": resized}, REORDERED)
