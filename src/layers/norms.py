"""Normalisation."""

import torch
from torch import nn


class OffsetLayerNorm(nn.LayerNorm):
    """Layer norm whose stored weight is the scale's distance from 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.layer_norm(x, self.normalized_shape, self.weight + 1.0, self.bias, self.eps)


def l2_normalize(x: torch.Tensor, eps: float) -> torch.Tensor:
    """x / sqrt(Σ x² + eps) over the last axis, computed in float32, in the dtype of `x`."""
    squares = x.float().square().sum(-1, keepdim=True)
    return (x.float() * (squares + eps).rsqrt()).to(x.dtype)


def unit_length(x: torch.Tensor, eps: float = 1e-12) -> torch.Tensor:
    """x / max(|x|, eps) over the last axis, computed in float32, in the dtype of `x`."""
    return nn.functional.normalize(x.float(), dim=-1, eps=eps).to(x.dtype)
