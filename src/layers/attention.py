"""One attention call for all families and all backends."""

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    implementation: str,
    scaling: float,
    dropout: float = 0.0,
    output_attentions: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Bidirectional multi-head attention.

    Args:
        module: the attention layer; transformers' backends read its `config`, `training` and `is_causal`.
        query: (B, heads, Nq, head_dim).
        key: (B, heads, Nk, head_dim).
        value: (B, heads, Nk, head_dim).
        implementation: the user's `attn_implementation`: "eager", "sdpa", or any name that transformers knows.
        scaling: factor of the dot products.
        dropout: rate at which probabilities are dropped in training.
        output_attentions: whether the probabilities are wanted. Only the eager computation has them, so it stands in
            for the other backends then.

    Returns:
        The attended values (B, Nq, heads·head_dim), and the probabilities (B, heads, Nq, Nk) or `None`.
    """
    dropout = dropout if module.training else 0.0
    if implementation == "eager" or output_attentions:
        attended, probabilities = _eager(query, key, value, scaling, dropout)
        return attended, probabilities if output_attentions else None
    if implementation == "sdpa":
        attended = nn.functional.scaled_dot_product_attention(query, key, value, scale=scaling, dropout_p=dropout)
        return attended.transpose(1, 2).flatten(2), None
    backend = ALL_ATTENTION_FUNCTIONS[implementation]
    attended, _ = backend(module, query, key, value, None, scaling=scaling, dropout=dropout, is_causal=False)
    return attended.flatten(2), None


def _eager(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, dropout: float
) -> tuple[torch.Tensor, torch.Tensor]:
    scores = query @ key.transpose(-1, -2) * scaling
    probabilities = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    attended = nn.functional.dropout(probabilities, dropout) @ value
    return attended.transpose(1, 2).flatten(2), probabilities
