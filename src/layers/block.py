"""Pieces of a transformer block that do not depend on the family."""

import torch
from torch import nn
from transformers.activations import ACT2FN, GELUActivation

from .linear import Linear


class Mlp(nn.Module):
    """Two linear layers with an activation between them: (..., D) → (..., D)."""

    def __init__(self, hidden_size: int, intermediate_size: int, activation: str):
        super().__init__()
        self.fc1 = Linear(hidden_size, intermediate_size)
        self.activation = ACT2FN[activation]
        self.fc2 = Linear(intermediate_size, hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(activate(self.activation, self.fc1(hidden_states), self.fc1))


def activate(activation: nn.Module, hidden_states: torch.Tensor, source: nn.Module) -> torch.Tensor:
    """Apply an activation to what a layer has just computed.

    Exact GELU overwrites its input, which spares the largest new tensor of a block, where nobody needs that any more.

    Args:
        activation: elementwise.
        hidden_states: (..., D).
        source: the layer that computed `hidden_states`; a hook on it may have kept them.

    Returns:
        (..., D), perhaps the same tensor.
    """
    has_hook = source._forward_hooks or nn.modules.module._has_any_global_hook()
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or has_hook:
        return activation(hidden_states)
    if isinstance(activation, GELUActivation) and activation.act is nn.functional.gelu:
        return torch.ops.aten.gelu_(hidden_states)
    return activation(hidden_states)


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
