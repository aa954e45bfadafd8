"""Pieces of a transformer block that do not depend on the family."""

import torch
from torch import nn
from transformers.activations import ACT2FN

from .cpu import runs_in_blocks, transform_in_blocks


class Mlp(nn.Module):
    """Two linear layers with an activation between them: (..., D) → (..., D)."""

    def __init__(self, hidden_size: int, intermediate_size: int, activation: str):
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, intermediate_size)
        self.activation = ACT2FN[activation]
        self.fc2 = nn.Linear(intermediate_size, hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if runs_in_blocks(hidden_states, self):
            return transform_in_blocks(hidden_states, self.fc1, self.activation, self.fc2)
        return self.fc2(self.activation(self.fc1(hidden_states)))


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


class Records:
    """Collects what a call wants to see of a stack of blocks.

    Args:
        hidden_states: the input of the first block.
        output_hidden_states: whether to keep it and the output of every block.
        output_attentions: whether to keep the attention probabilities of every block.
    """

    def __init__(self, hidden_states: torch.Tensor, output_hidden_states: bool, output_attentions: bool):
        self._hidden_states = [hidden_states] if output_hidden_states else None
        self._attentions = [] if output_attentions else None

    def add(self, hidden_states: torch.Tensor, probabilities: torch.Tensor | None) -> None:
        """Keep what a block returned."""
        if self._hidden_states is not None:
            self._hidden_states.append(hidden_states)
        if self._attentions is not None:
            self._attentions.append(probabilities)

    @property
    def hidden_states(self) -> tuple[torch.Tensor, ...] | None:
        """The input of every block and the output of the last one, if they were wanted."""
        return None if self._hidden_states is None else tuple(self._hidden_states)

    @property
    def attentions(self) -> tuple[torch.Tensor, ...] | None:
        """The probabilities of every block, if they were wanted."""
        return None if self._attentions is None else tuple(self._attentions)
