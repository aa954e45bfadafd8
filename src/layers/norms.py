"""Normalization."""

import torch
from torch import nn


def unit_length(x: torch.Tensor, eps: float = 1e-12) -> torch.Tensor:
    """x / max(|x|, eps) over the last axis, computed in float32, in the dtype of `x`."""
    return nn.functional.normalize(x.float(), dim=-1, eps=eps).to(x.dtype)
