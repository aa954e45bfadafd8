"""Matrix products in half precision, also on CPUs that have no instructions for it.

There PyTorch falls back to loops that run at a fraction of the float32 rate (a quarter for linear layers, less than a
hundredth for batched products, on a CPU with AVX2). Computing such products in float32 and rounding the result is
both faster and closer to exact.
"""

import torch
from torch import nn


def _cpu_has_instructions(dtype: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.ops.mkldnn._is_mkldnn_fp16_supported()


FALLBACK_DTYPES = tuple(dtype for dtype in (torch.bfloat16, torch.float16) if not _cpu_has_instructions(dtype))
"""Dtypes whose products this machine's CPU computes in float32."""


def for_product(tensor: torch.Tensor) -> torch.Tensor:
    """`tensor` in the dtype in which its device multiplies: itself, or a float32 copy."""
    return tensor.float() if tensor.dtype in FALLBACK_DTYPES and tensor.device.type == "cpu" else tensor


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """`torch.nn.functional.linear` of x (..., in) and weight (out, in), in the dtype of `x`."""
    bias = bias if bias is None else for_product(bias)
    return nn.functional.linear(for_product(x), for_product(weight), bias).to(x.dtype)


class Linear(nn.Linear):
    """`nn.Linear` computed by [`linear`], whose weights the model draws in `_init_weights` and nobody before it."""

    def reset_parameters(self) -> None:
        """Leave the memory as it is: drawing all weights twice would take half of a model's construction."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return linear(x, self.weight, self.bias)
