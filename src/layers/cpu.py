"""How a CPU computes what the layers say: products of half precision, scores that stay in its cache, less new memory.

CPUs without instructions for products of half precision run them in loops at a fraction of the float32 rate (a quarter
for linear layers, less than a hundredth for batched products, on a CPU with AVX2). Computing such products in float32
and rounding the result is both faster and closer to exact.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import product
from math import ceil, prod
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers.activations import GELUActivation

from .modules import is_computed_as_called, is_plain
from .threads import run_blocks, threads_for


if TYPE_CHECKING:
    from .attention import Inputs

BYTES_AT_ONCE = 15 * 2**19
"""Bytes of tokens that an MLP transforms at once. Its first layer makes four times as many, which should stay below
32 MiB: larger memory always comes fresh from the system, which is dear. In small blocks threads wait for each other
often, and long where other programs compute."""

MANY_TOKENS = 4096
"""Tokens from which an MLP on a GPU overwrites what its first layer makes, which halves what a forward pass needs."""

IN_CACHE = 2**19
"""Scores that exist at once, and numbers of several sequences' queries: two megabytes, which a CPU's caches hold."""

SCORES_ON_DEVICE = 2**26
"""Scores that exist at once on other devices, where the computation in blocks is only for soft caps."""

QUERIES_ON_DEVICE = 2**23
"""Numbers of the queries, of several sequences, that are copied at once there."""

SIGMOID_SOFTCAP = 64.0
"""The highest bound that is computed by sigmoids, at a quarter of the cost of tanh; errors grow with it."""


# ------------------------------------------------------------------------------------------------- half precision


def _has_instructions(dtype: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.ops.mkldnn._is_mkldnn_fp16_supported()


FALLBACK_DTYPES = tuple(dtype for dtype in (torch.bfloat16, torch.float16) if not _has_instructions(dtype))
"""Dtypes whose products this machine's CPU computes in float32."""

HAS_TILES = getattr(torch.cpu, "_is_amx_tile_supported", bool)()
"""Whether this CPU multiplies tiles of bfloat16 (AMX), with which PyTorch's fused attention is faster than blocks."""

PRODUCTS = frozenset(
    {
        nn.functional.linear,
        nn.functional.conv1d,
        nn.functional.conv2d,
        nn.functional.conv3d,
        torch.matmul,
        torch.Tensor.matmul,
        torch.Tensor.__matmul__,
        torch.bmm,
        torch.einsum,
    }
)


def falls_back(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether products of a dtype are computed in float32 on a device."""
    return dtype in FALLBACK_DTYPES and device.type == "cpu"


def for_product(tensor: torch.Tensor) -> torch.Tensor:
    """`tensor` in the dtype in which its device multiplies: itself, or a float32 copy."""
    return tensor.float() if falls_back(tensor.dtype, tensor.device) else tensor


class _Float32Products(TorchFunctionMode):
    """Computes products of half precision in float32 and rounds them, whoever asks for them."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function not in PRODUCTS:
            return function(*args, **kwargs)
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
        dtypes = {tensor.dtype for tensor in tensors}
        ordinary = all(type(tensor) in (torch.Tensor, nn.Parameter) for tensor in tensors)
        if not ordinary or len(dtypes) > 1 or not all(falls_back(each.dtype, each.device) for each in tensors):
            return function(*args, **kwargs)
        args = (value.float() if isinstance(value, torch.Tensor) else value for value in args)
        kwargs = {name: value.float() if isinstance(value, torch.Tensor) else value for name, value in kwargs.items()}
        return function(*args, **kwargs).to(*dtypes)


def float32_products(dtype: torch.dtype, device: torch.device) -> AbstractContextManager:
    """A context for computing with tensors of a dtype on a device; it does nothing where they have instructions.

    It does nothing in traced programs either: what they do, their backend decides.
    """
    if falls_back(dtype, device) and not torch.compiler.is_compiling():
        return _Float32Products()
    return nullcontext()


def checkpoint_with_products(checkpoint: Callable) -> Callable:
    """A function that checkpoints like the given one, and computes products the second time as the first time."""

    def run_in_context(function: Callable, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        with float32_products(hidden_states.dtype, hidden_states.device):
            return function(hidden_states, *args, **kwargs)

    return lambda function, *args, **kwargs: checkpoint(partial(run_in_context, function), *args, **kwargs)


# --------------------------------------------------------------------------------------------------------- blocks


def runs_in_blocks(tokens: torch.Tensor, *modules: nn.Module) -> bool:
    """Whether [`transform_in_blocks`] may stand in for calling modules once: where it pays and nobody can tell."""
    if torch.compiler.is_compiling() or tokens.device.type not in ("cpu", "cuda"):
        return False
    if tokens.device.type == "cuda" and prod(tokens.shape[:-1]) < MANY_TOKENS:
        return False
    return all(map(is_plain, modules))


def transform_in_blocks(
    tokens: torch.Tensor, expand: nn.Module, activation: nn.Module, contract: nn.Module
) -> torch.Tensor:
    """Apply an MLP, overwriting what its first layer makes; on a CPU to a block of tokens after the other.

    Args:
        tokens: (..., D).
        expand: (..., D) to (..., E).
        activation: elementwise.
        contract: (..., E) to (..., D).

    Returns:
        (..., D).
    """
    if isinstance(activation, GELUActivation) and activation.act is nn.functional.gelu:
        activation = torch.ops.aten.gelu_
    if tokens.device.type != "cpu":
        return contract(activation(expand(tokens)))
    rows = tokens.flatten(0, -2)
    num_blocks = max(ceil(rows.numel() * for_product(rows[:0]).element_size() / BYTES_AT_ONCE), 1)
    blocks = rows.tensor_split(num_blocks)
    if not (type(expand) is type(contract) is nn.Linear and is_computed_as_called(rows)):
        return torch.cat([contract(activation(expand(block))) for block in blocks]).unflatten(0, tokens.shape[:-1])
    transformed = rows.new_empty(len(rows), contract.out_features)
    buffer = rows.new_empty(len(blocks[0]), expand.out_features)
    for block, part in zip(blocks, transformed.tensor_split(num_blocks), strict=True):
        expanded = nn.functional.linear(block, expand.weight, expand.bias, out=buffer[: len(block)])
        nn.functional.linear(activation(expanded), contract.weight, contract.bias, out=part)
    return transformed.unflatten(0, tokens.shape[:-1])


def attention_in_blocks(inputs: Inputs) -> torch.Tensor:
    """Exact attention for inference that holds few scores at once: on a CPU, what fits into its cache.

    Scores that leave the cache are what makes the eager computation slow on a CPU, and PyTorch's fused kernel has no
    soft cap and runs half precision at a third of the rate of the CPU's matrix instructions.

    Returns:
        The attended values (B, Nq, heads·head_dim).
    """
    dtype, mask = inputs.query.dtype, inputs.mask
    query, key, value = (for_product(states) for states in (inputs.query, inputs.key, inputs.value))
    batch, heads, num_queries, head_dim = query.shape
    num_keys = key.shape[2]
    attended = query.new_empty(batch, num_queries, heads, head_dim)
    num_threads = threads_for(inputs.query)
    on_cpu = query.device.type == "cpu"
    most_scores, most_queries = (IN_CACHE, IN_CACHE) if on_cpu else (SCORES_ON_DEVICE, QUERIES_ON_DEVICE)
    num_rows = max(most_scores // num_keys, 1)
    step_queries = min(num_queries, num_rows)
    step_heads = min(heads, max(num_rows // num_queries, 1))
    step_batch = max(min(num_rows, most_queries // head_dim) // (num_queries * heads), 1)

    def worker() -> Callable[[tuple[slice, slice, slice]], None]:
        # One buffer for the scores of every block: fresh memory costs a CPU more than filling it.
        buffer = query.new_empty(min(step_batch, batch) * step_heads * step_queries * num_keys)

        def attend(place: tuple[slice, slice, slice]) -> None:
            videos, some_heads, rows = place
            block = inputs._replace(
                query=query[place],
                key=key[videos, some_heads],
                value=value[videos, some_heads],
                mask=None if mask is None else _part_of_mask(mask, place),
            )
            attended[videos, rows, some_heads] = _attend(block, buffer).transpose(1, 2)

        return attend

    steps = ((batch, step_batch), (heads, step_heads), (num_queries, step_queries))
    places = list(product(*([slice(first, first + step) for first in range(0, count, step)] for count, step in steps)))
    run_blocks(worker, places, num_threads)
    return attended.flatten(2).to(dtype)


def _part_of_mask(mask: torch.Tensor, parts: tuple[slice, slice, slice]) -> torch.Tensor:
    """The mask of a block: axes of length one serve every block."""
    for axis, part in enumerate(parts):
        if mask.shape[axis] > 1:
            mask = mask[(slice(None),) * axis + (part,)]
    return mask


def _attend(block: Inputs, buffer: torch.Tensor) -> torch.Tensor:
    """Attended values (B, heads, Nq, head_dim) of one block, whose scores lie in `buffer`."""
    shape, softcap = (*block.query.shape[:3], block.key.shape[2]), block.softcap
    query, key, value = (states.flatten(0, 1) for states in block[:3])  # (B·heads, N, head_dim)
    scores = buffer[: prod(shape)].view(-1, *shape[2:])  # (B·heads, Nq, Nk)
    factor = block.scaling / (softcap or 1.0)
    by_sigmoid = softcap is not None and softcap <= SIGMOID_SOFTCAP
    torch.baddbmm(scores, query, key.transpose(1, 2), beta=0, alpha=2 * factor if by_sigmoid else factor, out=scores)
    scores = scores.float()
    if by_sigmoid:
        # tanh(x) is 2·sigmoid(2x) - 1, and constants don't change a softmax.
        scores.sigmoid_().mul_(2 * softcap)
    elif softcap is not None:
        scores.tanh_().mul_(softcap)
    if block.mask is not None:
        scores.view(shape).masked_fill_(~block.mask, torch.finfo(scores.dtype).min)
    torch.softmax(scores, -1, out=scores)
    return (scores.to(value.dtype) @ value).unflatten(0, shape[:2])
