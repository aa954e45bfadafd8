"""Rotary positions as one kernel on a GPU, which reads and writes every channel once. Importing it takes Triton.

The plain operations of `rope.py` take six times as long. PyTorch's compiler makes as good a kernel of them for one
size, but for sizes that change one that is slower than the operations.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def _turn(
    x,
    own,
    neighbor,
    turned,
    num_tokens,
    num_places,
    batch_stride,
    token_stride,
    head_dim: tl.constexpr,
    width: tl.constexpr,
    block: tl.constexpr,
):
    """One token of one sequence: its `width` = heads · head_dim channels."""
    row = tl.program_id(0)
    channel = tl.arange(0, block)
    inside = channel < width
    token = x + (row // num_tokens).to(tl.int64) * batch_stride + (row % num_tokens) * token_stride
    factor = (row % num_places).to(tl.int64) * head_dim + channel % head_dim
    values = tl.load(token + channel, inside).to(tl.float32)
    neighbors = tl.load(token + (channel ^ 1), inside).to(tl.float32)
    result = values * tl.load(own + factor, inside).to(tl.float32)
    result += neighbors * tl.load(neighbor + factor, inside).to(tl.float32)
    tl.store(turned + row.to(tl.int64) * width + channel, result, inside)


def turn(x: torch.Tensor, own: torch.Tensor, neighbor: torch.Tensor) -> torch.Tensor:
    """Turn queries or keys.

    Args:
        x: (B, N, heads, head_dim); the channels of a token lie side by side.
        own: factors of the channels, (B or 1, N, 1, head_dim), contiguous.
        neighbor: factors of their neighbors, of the same shape, contiguous.

    Returns:
        A tensor of `x`'s shape and dtype.
    """
    batch, num_tokens, heads, head_dim = x.shape
    turned = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    width = heads * head_dim
    with torch.cuda.device_of(x):
        _turn[(batch * num_tokens,)](
            x,
            own,
            neighbor,
            turned,
            num_tokens,
            own.shape[0] * num_tokens,
            x.stride(0),
            x.stride(1),
            head_dim=head_dim,
            width=width,
            block=triton.next_power_of_2(width),
        )
    return turned
