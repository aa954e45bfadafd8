"""Attention of a few learned queries to many tokens, without projecting every token.

Shapes: B sequences of N tokens with D channels; Q queries.
"""

import torch
from torch import nn

from .linear import for_product, linear


Projection = tuple[torch.Tensor, torch.Tensor | None]
"""Weight (out, in) and bias (out,) of a linear layer, the bias `None` if it has none."""


def project_queries(queries: torch.Tensor, projection: Projection, num_heads: int) -> torch.Tensor:
    """Project learned queries, at least in float32: they are few, and every score depends on them.

    Args:
        queries: (1, Q, D).
        projection: from D to heads·head_dim channels.
        num_heads: number of heads.

    Returns:
        (Q, heads, head_dim).
    """
    weight, bias = projection
    wide = torch.promote_types(weight.dtype, torch.float32)
    # Sums of products, because a product with a single row rounds by where its weights lie in memory.
    projected = (queries.to(wide).transpose(0, 1) * weight.to(wide)).sum(-1)
    if bias is not None:
        projected = projected + bias.to(wide)
    return projected.unflatten(-1, (num_heads, -1))


def pool_by_queries(
    tokens: torch.Tensor, query: torch.Tensor, key: Projection, value: Projection, dropout: float = 0.0
) -> torch.Tensor:
    """Attention of the same queries to every sequence.

    A score q·(W x + b) is (Wᵀ q)·x + q·b, and a mean of W x + b is W times the mean of x, plus b: with few queries
    that is a hundredth of the work of projecting every token.

    Args:
        tokens: (B, N, D).
        query: (Q, heads, head_dim), projected and scaled.
        key: of the keys, from D to heads·head_dim channels.
        value: of the values, likewise.
        dropout: rate at which probabilities are dropped.

    Returns:
        (B, Q, heads·head_dim), in the dtype of `tokens`.
    """
    heads = query.shape[1:]
    directions = torch.einsum("qhc,hcd->qhd", query, key[0].to(query.dtype).unflatten(0, heads))
    offsets = torch.zeros_like(query) if key[1] is None else query * key[1].to(query.dtype).unflatten(0, heads)
    directions, offsets = directions.flatten(0, 1), offsets.sum(-1).flatten()  # (Q·heads, D), (Q·heads,)
    scores = linear(tokens, directions.to(tokens.dtype), offsets.to(tokens.dtype)).float()  # (B, N, Q·heads)
    probabilities = nn.functional.dropout(scores.softmax(1), dropout).to(tokens.dtype)

    means = for_product(probabilities).transpose(1, 2) @ for_product(tokens)  # (B, Q·heads, D)
    means = means.unflatten(1, query.shape[:2])
    values = torch.einsum("bqhd,hcd->bqhc", means, for_product(value[0].unflatten(0, heads)))
    if value[1] is not None:
        weights = probabilities.sum(1).unflatten(1, query.shape[:2])[..., None]  # (B, Q, heads, 1)
        values = values + weights * value[1].unflatten(0, heads)
    return values.flatten(2).to(tokens.dtype)
