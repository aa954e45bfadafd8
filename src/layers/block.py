"""Pieces of a transformer block that do not depend on the family."""

import torch
from torch import nn
from transformers.activations import ACT2FN, GELUActivation

from .linear import Linear


TOKENS_AT_ONCE = 1024
"""Tokens that an MLP transforms at once in inference on a CPU, where memory fresh from the system is dear."""


class Mlp(nn.Module):
    """Two linear layers with an activation between them: (..., D) → (..., D)."""

    def __init__(self, hidden_size: int, intermediate_size: int, activation: str):
        super().__init__()
        self.fc1 = Linear(hidden_size, intermediate_size)
        self.activation = ACT2FN[activation]
        self.fc2 = Linear(intermediate_size, hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return feed_forward(hidden_states, self.fc1, self.activation, self.fc2)


def feed_forward(
    hidden_states: torch.Tensor, expand: nn.Module, activation: nn.Module, contract: nn.Module
) -> torch.Tensor:
    """contract(activation(expand(x))) of tokens (..., D), in inference on a CPU a block of tokens after the other."""
    if hidden_states.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return contract(activation(expand(hidden_states)))
    # GELU has no public in-place form.
    activate = torch.ops.aten.gelu_ if type(activation) is GELUActivation else activation
    blocks = hidden_states.flatten(0, -2).split(TOKENS_AT_ONCE)
    transformed = torch.cat([contract(activate(expand(block))) for block in blocks])
    return transformed.unflatten(0, hidden_states.shape[:-1])


class DropPath(nn.Module):
    """Stochastic depth (https://arxiv.org/abs/1603.09382): in training, drop a residual branch for whole samples.

    Args:
        rate: probability of dropping, in [0, 1). Branches that stay are scaled by 1 / (1 - rate).
    """

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, branch: torch.Tensor) -> torch.Tensor:
        if not self.training or self.rate == 0:
            return branch
        keep = torch.empty(branch.shape[0], *[1] * (branch.ndim - 1), dtype=branch.dtype, device=branch.device)
        return branch * keep.bernoulli_(1 - self.rate) / (1 - self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


def drop_path_rates(last_rate: float, num_layers: int) -> list[float]:
    """Rates that rise linearly from 0 in the first of `num_layers` blocks to `last_rate` in the last one."""
    return [last_rate * index / max(num_layers - 1, 1) for index in range(num_layers)]
