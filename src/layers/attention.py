"""One attention call for all families and all backends."""

from collections.abc import Callable
from math import prod

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .linear import FALLBACK_DTYPES, for_product


QUERY_BLOCK_SIZE = 256
"""Queries whose scores exist at once where gradients are wanted or a graph is traced."""

SCORES_IN_CACHE = 2**19
"""Scores that exist at once in inference on a CPU: two megabytes, which its caches hold."""

SIGMOID_SOFTCAP = 64.0
"""The highest bound that is computed by sigmoids, at a quarter of the cost of tanh on a CPU; errors grow with it."""

SCORES_ON_DEVICE = 2**26
"""Scores that exist at once in inference elsewhere."""


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    implementation: str,
    scaling: float,
    dropout: float = 0.0,
    softcap: float | None = None,
    mask: torch.Tensor | None = None,
    output_attentions: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Multi-head attention, over all keys or over those that a mask leaves.

    Args:
        module: the attention layer; transformers' backends read its `config`, `training` and `is_causal`.
        query: (B, heads, Nq, head_dim).
        key: (B, heads, Nk, head_dim).
        value: (B, heads, Nk, head_dim).
        implementation: the user's `attn_implementation`: "eager", "sdpa", or any name that transformers knows.
        scaling: factor of the dot products.
        dropout: rate at which probabilities are dropped in training.
        softcap: bound of the scores: softcap·tanh(score / softcap) stands in for the score. `None` or 0 is no bound.
        mask: boolean, broadcastable to (B, heads, Nq, Nk), true where a query may attend to a key. A query that may
            attend to none attends to all alike, as the softmax of equal scores does, and no gradient reaches the
            scores. With a mask, what "sdpa" does stands in for transformers' other backends: flash attention has no
            such masks, and flex_attention of torch 2.13 corrupts memory with them on a CPU.
        output_attentions: whether the probabilities are wanted. Only the eager computation has them, so it stands in
            for the other backends then.

    Returns:
        The attended values (B, Nq, heads·head_dim), and the probabilities (B, heads, Nq, Nk) or `None`.
    """
    dropout = dropout if module.training else 0.0
    softcap = softcap or None
    if mask is not None:
        query, mask = _open_closed_rows(query, mask)
    if implementation == "eager" or output_attentions:
        attended, probabilities = _eager(query, key, value, mask, scaling, softcap, dropout)
        attended = attended.transpose(1, 2).flatten(2)
        return attended, probabilities if output_attentions else None
    if implementation == "sdpa" or (mask is not None):
        return _sdpa(query, key, value, mask, scaling, softcap, dropout), None
    backend = ALL_ATTENTION_FUNCTIONS[implementation]
    options = {} if softcap is None else {"softcap": softcap}
    attended, _ = backend(
        module, query, key, value, None, scaling=scaling, dropout=dropout, is_causal=False, **options
    )
    return attended.flatten(2), None


def _open_closed_rows(query: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Let queries that may attend to nothing attend to everything, and make their scores zero and so equal."""
    closed = ~mask.any(-1, keepdim=True)  # (B or 1, heads or 1, Nq or 1, 1)
    return query.masked_fill(closed, 0.0), mask | closed


def _eager(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    softcap: float | None,
    dropout: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """All scores at once: attended values (B, heads, Nq, head_dim) and probabilities (B, heads, Nq, Nk)."""
    dtype = query.dtype
    query, key, value = for_product(query), for_product(key), for_product(value)
    scores = (query @ key.transpose(-1, -2)).float() * scaling
    if softcap is not None:
        scores = (scores / softcap).tanh() * softcap
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    probabilities = scores.softmax(-1).to(query.dtype)
    attended = nn.functional.dropout(probabilities, dropout) @ value
    return attended.to(dtype), probabilities.to(dtype)


def _sdpa(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    softcap: float | None,
    dropout: float,
) -> torch.Tensor:
    """PyTorch's fused kernel where it can serve; otherwise the same, exactly, a block of scores after the other."""
    traced = torch.compiler.is_compiling()
    inference = not (dropout or torch.is_grad_enabled() or traced)
    half_on_cpu = query.device.type == "cpu" and query.dtype in (torch.bfloat16, torch.float16)
    if inference and (softcap is not None or (half_on_cpu and query.dtype not in FALLBACK_DTYPES)):
        return attention_in_blocks(query, key, value, mask, scaling, softcap)
    if softcap is not None:
        attended = _by_query_blocks(query, key, value, mask, scaling, softcap, dropout)
    else:
        attended = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=scaling, dropout_p=dropout
        )
    return attended.transpose(1, 2).flatten(2)


def _by_query_blocks(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    softcap: float | None,
    dropout: float,
) -> torch.Tensor:
    """The eager computation in blocks of queries; the backward pass computes the scores of each block again.

    Where a program is exported the number of queries may vary, so that it has a single block.

    Returns:
        (B, heads, Nq, head_dim).
    """
    run: Callable = _eager
    if torch.is_grad_enabled():

        def run(*arguments):
            return checkpoint(_eager, *arguments, use_reentrant=False)

    if torch.compiler.is_exporting():
        return run(query, key, value, mask, scaling, softcap, dropout)[0]
    queries = query.split(QUERY_BLOCK_SIZE, dim=2)
    masks = [mask] * len(queries)
    if mask is not None and mask.shape[2] > 1:
        masks = mask.split(QUERY_BLOCK_SIZE, dim=2)
    blocks = [
        run(block, key, value, part, scaling, softcap, dropout)[0] for block, part in zip(queries, masks, strict=True)
    ]
    return torch.cat(blocks, dim=2)


def attention_in_blocks(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    softcap: float | None,
) -> torch.Tensor:
    """Exact attention for inference that holds few scores at once: on a CPU, what fits into its cache.

    Scores that leave the cache are what makes the eager computation slow on a CPU, and PyTorch's fused kernel has no
    soft cap and runs half precision at a third of the rate of the CPU's matrix instructions.

    Args:
        query: (B, heads, Nq, head_dim).
        key: (B, heads, Nk, head_dim).
        value: (B, heads, Nk, head_dim).
        mask: boolean, broadcastable to (B, heads, Nq, Nk), with a key for every query; or `None`.
        scaling: factor of the dot products.
        softcap: bound of the scores, or `None`.

    Returns:
        The attended values (B, Nq, heads·head_dim).
    """
    batch, heads, num_queries, head_dim = query.shape
    num_keys, dtype = key.shape[2], query.dtype
    query, key, value = (for_product(states) for states in (query, key, value))
    attended = query.new_empty(batch, num_queries, heads, head_dim)
    limit = SCORES_IN_CACHE if query.device.type == "cpu" else SCORES_ON_DEVICE
    num_rows = max(limit // num_keys, 1)
    step_queries = min(num_queries, num_rows)
    step_heads = min(heads, max(num_rows // num_queries, 1))
    step_batch = max(num_rows // (num_queries * heads), 1)
    # One buffer for the scores of every block: fresh memory costs a CPU more than filling it.
    buffer = query.new_empty(min(step_batch, batch) * step_heads * step_queries * num_keys)
    for first in range(0, batch, step_batch):
        videos = slice(first, first + step_batch)
        for first_head in range(0, heads, step_heads):
            which = (videos, slice(first_head, first_head + step_heads))
            for first_query in range(0, num_queries, step_queries):
                rows = slice(first_query, first_query + step_queries)
                part = None if mask is None else _part_of_mask(mask, (*which, rows))
                block = _attend(query[which][:, :, rows], key[which], value[which], part, scaling, softcap, buffer)
                attended[videos, rows, which[1]] = block.transpose(1, 2)
    return attended.flatten(2).to(dtype)


def _part_of_mask(mask: torch.Tensor, parts: tuple[slice, slice, slice]) -> torch.Tensor:
    """The mask of a block: axes of length one serve every block."""
    for axis, part in enumerate(parts):
        if mask.shape[axis] > 1:
            mask = mask[(slice(None),) * axis + (part,)]
    return mask


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    softcap: float | None,
    buffer: torch.Tensor,
) -> torch.Tensor:
    """Attended values (B, heads, Nq, head_dim) of one block, whose scores lie in `buffer`."""
    shape = (*query.shape[:3], key.shape[2])
    query, key, value = (states.flatten(0, 1) for states in (query, key, value))  # (B·heads, N, head_dim)
    scores = buffer[: prod(shape)].view(-1, *shape[2:])  # (B·heads, Nq, Nk)
    factor = scaling / (softcap or 1.0)
    by_sigmoid = softcap is not None and softcap <= SIGMOID_SOFTCAP
    torch.baddbmm(scores, query, key.transpose(1, 2), beta=0, alpha=2 * factor if by_sigmoid else factor, out=scores)
    scores = scores.float()
    if by_sigmoid:
        # tanh(x) is 2·sigmoid(2x) - 1, and constants don't change a softmax.
        scores.sigmoid_().mul_(2 * softcap)
    elif softcap is not None:
        scores.tanh_().mul_(softcap)
    if mask is not None:
        scores.view(shape).masked_fill_(~mask, torch.finfo(scores.dtype).min)
    torch.softmax(scores, -1, out=scores)
    return (scores.to(value.dtype) @ value).unflatten(0, shape[:2])
