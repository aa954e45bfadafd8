"""One attention call for all families and all backends."""

import torch
from torch import nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .linear import FALLBACK_DTYPES, for_product


QUERY_BLOCK_SIZE = 256


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    implementation: str,
    scaling: float,
    mask: torch.Tensor | None = None,
    dropout: float = 0.0,
    output_attentions: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Multi-head attention, of every query to all keys or to those that a mask allows.

    Args:
        module: the attention layer; transformers' backends read its `config`, `training` and `is_causal`.
        query: (B, heads, Nq, head_dim).
        key: (B, heads, Nk, head_dim).
        value: (B, heads, Nk, head_dim).
        implementation: the user's `attn_implementation`: "eager", "sdpa", or any name that transformers knows.
        scaling: factor of the dot products.
        mask: (1 or B, 1, Nq, Nk) booleans, True where a query sees a key; every query must see one. eager, sdpa and
            flex_attention take it.
        dropout: rate at which probabilities are dropped in training.
        output_attentions: whether the probabilities are wanted. Only the eager computation has them, so it stands in
            for the other backends then.

    Returns:
        The attended values (B, Nq, heads·head_dim), and the probabilities (B, heads, Nq, Nk) or `None`.

    Raises:
        ValueError: a mask for a backend that takes none.
    """
    dropout = dropout if module.training else 0.0
    if implementation == "eager" or output_attentions:
        attended, probabilities = _eager(query, key, value, scaling, mask, dropout)
        return attended, probabilities if output_attentions else None
    if implementation == "sdpa":
        return _sdpa(query, key, value, scaling, mask, dropout), None
    backend = ALL_ATTENTION_FUNCTIONS[implementation]
    blocks = None if mask is None else _block_mask(mask, implementation)
    attended, _ = backend(module, query, key, value, blocks, scaling=scaling, dropout=dropout, is_causal=False)
    return attended.flatten(2), None


def _block_mask(mask: torch.Tensor, implementation: str) -> BlockMask:
    """A mask in the form in which flex_attention skips what it hides."""
    if implementation != "flex_attention":
        raise ValueError(
            f"attn_implementation={implementation!r} cannot restrict which tokens see each other, as this model does. "
            'Use "sdpa", "flex_attention" or "eager".'
        )
    batch_size, _, num_queries, num_keys = mask.shape

    def sees(batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return mask[batch if batch_size > 1 else 0, 0, query, key]

    return create_block_mask(
        sees, batch_size if batch_size > 1 else None, None, num_queries, num_keys, device=mask.device
    )


def _eager(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float,
    mask: torch.Tensor | None,
    dropout: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    dtype = query.dtype
    query, key, value = for_product(query), for_product(key), for_product(value)
    scores = query @ key.transpose(-1, -2) * scaling
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    probabilities = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    attended = nn.functional.dropout(probabilities, dropout) @ value
    return attended.transpose(1, 2).flatten(2).to(dtype), probabilities.to(dtype)


def _sdpa(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float,
    mask: torch.Tensor | None,
    dropout: float,
) -> torch.Tensor:
    half_on_cpu = query.device.type == "cpu" and query.dtype in (torch.bfloat16, torch.float16)
    inference = not (dropout or torch.is_grad_enabled() or torch.compiler.is_compiling())
    if half_on_cpu and inference and query.dtype not in FALLBACK_DTYPES:
        return attention_by_query_blocks(query, key, value, scaling, mask)
    attended = nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scaling, dropout_p=dropout
    )
    return attended.transpose(1, 2).flatten(2)


def attention_by_query_blocks(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Attention as two batched products a block of queries, for inference in half precision on a CPU.

    PyTorch's fused kernel there runs at a third of the rate of the CPU's half-precision matrix instructions; plain
    products use them fully.

    Args:
        query: (B, heads, Nq, head_dim).
        key: (B, heads, Nk, head_dim).
        value: (B, heads, Nk, head_dim).
        scaling: factor of the dot products.
        mask: (1 or B, 1, Nq, Nk) booleans, True where a query sees a key.

    Returns:
        The attended values (B, Nq, heads·head_dim). No more than `QUERY_BLOCK_SIZE` rows of scores exist at once.
    """
    transposed_key = key.transpose(-1, -2)
    blocks = []
    for start in range(0, query.shape[2], QUERY_BLOCK_SIZE):
        rows = slice(start, start + QUERY_BLOCK_SIZE)
        scores = (query[:, :, rows] @ transposed_key) * scaling
        if mask is not None:
            scores = scores.masked_fill_(~mask[:, :, rows], -torch.inf)
        blocks.append(scores.softmax(-1) @ value)
    return torch.cat(blocks, dim=2).transpose(1, 2).flatten(2)
