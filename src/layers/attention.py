"""One attention call for all families and all backends: what is computed. `cpu.py` says how a CPU does it."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .cpu import FALLBACK_DTYPES, HAS_TILES, attention_in_blocks, for_product
from .flex import bounded_attention


QUERY_BLOCK_SIZE = 256
"""Queries whose scores exist at once where gradients are wanted or a graph is traced."""


class Inputs(NamedTuple):
    """What one computation of attention takes.

    Attributes:
        query: (B, heads, Nq, head_dim).
        key: (B, heads, Nk, head_dim).
        value: (B, heads, Nk, head_dim).
        mask: booleans, broadcastable to (B, heads, Nq, Nk), with a key for every query; or `None`.
        scaling: factor of the dot products.
        softcap: bound of the scores, or `None`.
        dropout: rate at which probabilities are dropped.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None
    scaling: float
    softcap: float | None
    dropout: float


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    scaling: float,
    dropout: float = 0.0,
    softcap: float | None = None,
    mask: torch.Tensor | None = None,
    output_attentions: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Multi-head attention, over all keys or over those that a mask leaves.

    Args:
        module: the attention layer. `config._attn_implementation` is the user's choice of the backend: "eager",
            "sdpa", or any name that transformers knows. transformers' backends also read `training` and `is_causal`.
        query: (B, heads, Nq, head_dim).
        key: (B, heads, Nk, head_dim).
        value: (B, heads, Nk, head_dim).
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
    implementation = module.config._attn_implementation
    if mask is not None:
        query, mask = _open_closed_rows(query, mask)
    inputs = Inputs(query, key, value, mask, scaling, softcap or None, dropout if module.training else 0.0)
    if implementation == "eager" or output_attentions:
        attended, probabilities = _eager(inputs)
        return attended.transpose(1, 2).flatten(2), probabilities if output_attentions else None
    if implementation == "sdpa" or mask is not None:
        return _sdpa(inputs), None
    backend = ALL_ATTENTION_FUNCTIONS[implementation]
    options = {} if inputs.softcap is None else {"softcap": inputs.softcap}
    attended, _ = backend(
        module, query, key, value, None, scaling=scaling, dropout=inputs.dropout, is_causal=False, **options
    )
    return attended.flatten(2), None


def _open_closed_rows(query: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Let queries that may attend to nothing attend to everything, and make their scores zero and so equal."""
    closed = ~mask.any(-1, keepdim=True)  # (B or 1, heads or 1, Nq or 1, 1)
    return query.masked_fill(closed, 0.0), mask | closed


def _eager(inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """All scores at once: attended values (B, heads, Nq, head_dim) and probabilities (B, heads, Nq, Nk)."""
    query, key, value, mask, scaling, softcap, dropout = inputs
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


def _sdpa(inputs: Inputs) -> torch.Tensor:
    """PyTorch's fused kernel where it can serve; otherwise the same, exactly, a block of scores after the other."""
    query, inference = inputs.query, not (inputs.dropout or torch.is_grad_enabled() or torch.compiler.is_compiling())
    half_on_cpu = query.device.type == "cpu" and query.dtype in (torch.bfloat16, torch.float16)
    blocks_are_faster = half_on_cpu and query.dtype not in FALLBACK_DTYPES and not HAS_TILES
    if inputs.softcap is not None and inputs.mask is None and not inputs.dropout:
        attended = bounded_attention(query, inputs.key, inputs.value, inputs.scaling, inputs.softcap)
        if attended is not None:
            return attended.transpose(1, 2).flatten(2)
    if inference and (inputs.softcap is not None or blocks_are_faster):
        return attention_in_blocks(inputs)
    if inputs.softcap is not None:
        attended = _by_query_blocks(inputs)
    else:
        attended = nn.functional.scaled_dot_product_attention(
            query, inputs.key, inputs.value, attn_mask=inputs.mask, scale=inputs.scaling, dropout_p=inputs.dropout
        )
    return attended.transpose(1, 2).flatten(2)


def _by_query_blocks(inputs: Inputs) -> torch.Tensor:
    """The eager computation in blocks of queries; the backward pass computes the scores of each block again.

    Where a program is exported the number of queries may vary, so that it has a single block.

    Returns:
        (B, heads, Nq, head_dim).
    """
    run: Callable = _eager
    if torch.is_grad_enabled():

        def run(inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
            return checkpoint(_eager, inputs, use_reentrant=False)

    if torch.compiler.is_exporting():
        return run(inputs)[0]
    queries, mask = inputs.query.split(QUERY_BLOCK_SIZE, dim=2), inputs.mask
    masks = [mask] * len(queries)
    if mask is not None and mask.shape[2] > 1:
        masks = mask.split(QUERY_BLOCK_SIZE, dim=2)
    blocks = [run(inputs._replace(query=query, mask=part))[0] for query, part in zip(queries, masks, strict=True)]
    return torch.cat(blocks, dim=2)
