"""Pieces of a transformer block that do not depend on the family."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

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
        return in_token_blocks(self._transform, hidden_states)

    def _transform(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.fc2(activate(self.activation, self.fc1(tokens), self.fc1))


def in_token_blocks(transform: Callable[[torch.Tensor], torch.Tensor], hidden_states: torch.Tensor) -> torch.Tensor:
    """Apply what treats tokens one by one, in inference on a CPU to a block of them after the other.

    Args:
        transform: tokens (n, D) or (..., D) to tokens of the same shape.
        hidden_states: (..., D).

    Returns:
        (..., D).
    """
    if hidden_states.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return transform(hidden_states)
    transformed = torch.cat([transform(block) for block in hidden_states.flatten(0, -2).split(TOKENS_AT_ONCE)])
    return transformed.unflatten(0, hidden_states.shape[:-1])


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


@dataclass
class StackOutput:
    """What a stack of blocks leaves: its output, the records that were asked for, and outputs of blocks by number."""

    last: torch.Tensor
    hidden_states: tuple[torch.Tensor, ...] | None
    attentions: tuple[torch.Tensor, ...] | None
    kept: dict[int, torch.Tensor]


def run_layers(
    layers: nn.ModuleList,
    hidden_states: torch.Tensor,
    *inputs: Any,
    output_hidden_states: bool = False,
    output_attentions: bool = False,
    keep: Collection[int] = (),
) -> StackOutput:
    """Run blocks in order, recording what was asked for.

    Args:
        layers: blocks whose forward takes hidden states, `inputs` and `output_attentions`, in this order, and returns
            hidden states and attention probabilities.
        hidden_states: (B, N, D).
        inputs: what every block is given besides.
        output_hidden_states: whether to record the input of every block and the output of the last one.
        output_attentions: whether to record the attention probabilities of every block.
        keep: numbers, from 0, of blocks whose outputs are wanted.
    """
    hidden_record, attention_record, kept = [hidden_states], [], {}
    for index, layer in enumerate(layers):
        hidden_states, probabilities = layer(hidden_states, *inputs, output_attentions)
        if output_hidden_states:
            hidden_record.append(hidden_states)
        if output_attentions:
            attention_record.append(probabilities)
        if index in keep:
            kept[index] = hidden_states
    return StackOutput(
        last=hidden_states,
        hidden_states=tuple(hidden_record) if output_hidden_states else None,
        attentions=tuple(attention_record) if output_attentions else None,
        kept=kept,
    )
