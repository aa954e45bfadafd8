"""The attentive pooler of V-JEPA 2's probes, which serves tokens of any family.

Source: facebookresearch/vjepa2 at c2963a47, `src/models/attentive_pooler.py`. Configurations of models that have one
give `hidden_size`, `hidden_act` and the fields `num_pooler_layers`, `pooler_num_attention_heads`,
`pooler_layer_norm_eps` and `attention_dropout`.

Shapes: B videos; N tokens with D channels; Q queries.
"""

from math import sqrt
from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from vidformers.layers.attention import attention
from vidformers.layers.block import Mlp


def init_residual(std: float, depth: int, *projections: nn.Linear) -> None:
    """Let the last layers of the residual branches of block `depth`, from 1, start smaller by √(2·depth).

    Source: `_rescale_blocks` of the original's encoder, predictor and pooler.
    """
    for projection in projections:
        init.trunc_normal_(projection.weight, std=std / sqrt(2 * depth))


class ProbeFeatures(NamedTuple):
    """What probes read of a batch of videos.

    Attributes:
        tokens: (B·views, N, D).
        hidden_states: of the encoder, where they were asked for.
        attentions: of the encoder, likewise.
        num_views: views of each video, if the input had views.
    """

    tokens: torch.Tensor
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    num_views: int | None = None


class PoolerCrossAttention(nn.Module):
    """Attention of a probe's queries to the tokens. It has no output projection."""

    is_causal = False

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.pooler_num_attention_heads
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, queries: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Attend from `queries` (B, Q, D) to `tokens` (B, N, D): (B, Q, D)."""
        query, key, value = (
            projection(states).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (B, heads, Q or N, head_dim)
            for projection, states in ((self.q_proj, queries), (self.k_proj, tokens), (self.v_proj, tokens))
        )
        attended, _ = attention(
            self,
            query,
            key,
            value,
            scaling=self.head_dim**-0.5,
            dropout=self.config.attention_dropout,
        )
        return attended


class PoolerSelfAttention(PoolerCrossAttention):
    """Self-attention of a probe, without positions."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Attend from tokens (B, N, D) to themselves: (B, N, D)."""
        return self.out_proj(super().forward(hidden_states, hidden_states))


class PoolerSelfAttentionLayer(GradientCheckpointingLayer):
    """Pre-norm block of a probe."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.pooler_layer_norm_eps)
        self.self_attn = PoolerSelfAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.pooler_layer_norm_eps)
        self.mlp = Mlp(config.hidden_size, 4 * config.hidden_size, config.hidden_act)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = hidden_states + self.self_attn(self.layer_norm1(hidden_states))
        return hidden_states + self.mlp(self.layer_norm2(hidden_states))


class PoolerCrossAttentionLayer(GradientCheckpointingLayer):
    """Cross-attention block of a probe: the tokens are normalized, the queries are not."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.pooler_layer_norm_eps)
        self.cross_attn = PoolerCrossAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.pooler_layer_norm_eps)
        self.mlp = Mlp(config.hidden_size, 4 * config.hidden_size, config.hidden_act)

    def forward(self, queries: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        queries = queries + self.cross_attn(queries, self.layer_norm1(tokens))
        return queries + self.mlp(self.layer_norm2(queries))


class AttentivePooler(nn.Module):
    """Attentive probe: self-attention blocks over the tokens, then learned queries that attend to them.

    The MLP ratio is 4 in every probe.
    """

    def __init__(self, config: PreTrainedConfig, num_queries: int = 1):
        super().__init__()
        if config.hidden_size % config.pooler_num_attention_heads:
            raise ValueError(
                f"`hidden_size` ({config.hidden_size}) must be a multiple of `pooler_num_attention_heads` "
                f"({config.pooler_num_attention_heads}) in a model with a probe."
            )
        self.query_tokens = nn.Parameter(torch.zeros(1, num_queries, config.hidden_size))
        self.cross_attention_layer = PoolerCrossAttentionLayer(config)
        self.self_attention_layers = nn.ModuleList(
            PoolerSelfAttentionLayer(config) for _ in range(config.num_pooler_layers)
        )

    def initialize(self, std: float) -> None:
        """Draw the queries, and the last layers of residual branches smaller the deeper they stand.

        The original counts the cross-attention block as deep as the last self-attention block.
        """
        init.trunc_normal_(self.query_tokens, std=std)
        for depth, layer in enumerate(self.self_attention_layers, start=1):
            init_residual(std, depth, layer.self_attn.out_proj, layer.mlp.fc2)
        init_residual(std, max(len(self.self_attention_layers), 1), self.cross_attention_layer.mlp.fc2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Pool tokens (B, N, D) into queries (B, Q, D)."""
        for layer in self.self_attention_layers:
            tokens = layer(tokens)
        queries = self.query_tokens.to(tokens.dtype).expand(tokens.shape[0], -1, -1)
        return self.cross_attention_layer(queries, tokens)


def classify_tokens(head: nn.Module, features: ProbeFeatures) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Logits of a head with a `pooler` and a `classifier`.

    Args:
        head: has these two modules.
        features: what it reads.

    Returns:
        (B, classes), of several views the logarithm of their mean probabilities; and (B, views, classes), or `None`
        where the input had no views.
    """
    logits = head.classifier(head.pooler(features.tokens).squeeze(1))
    if features.num_views is None:
        return logits, None
    of_views = logits.unflatten(0, (-1, features.num_views))
    return of_views.softmax(-1).mean(1).log(), of_views
