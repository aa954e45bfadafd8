"""TODO(M2): goes once no family uses it. `cpu.py` has what stays."""

import torch
from torch import nn

from .cpu import FALLBACK_DTYPES, for_product


__all__ = ["FALLBACK_DTYPES", "Linear", "for_product", "linear"]

Linear = nn.Linear


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """`torch.nn.functional.linear` of x (..., in) and weight (out, in), in the dtype of `x`."""
    bias = bias if bias is None else for_product(bias)
    return nn.functional.linear(for_product(x), for_product(weight), bias).to(x.dtype)
