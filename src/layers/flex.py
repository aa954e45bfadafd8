"""Attention with bounded scores as one kernel on a GPU: flex attention, which PyTorch compiles.

It is compiled when it is first called, which takes some seconds, and again for a new kind of input. Where that can't
be done (something watches operations, no compiler) the caller has another way. `TORCH_COMPILE_DISABLE=1` turns it off,
as all that PyTorch compiles.
"""

import os
from collections.abc import Callable
from functools import cache

import torch
from transformers.utils import logging

from .modules import is_watched


logger = logging.get_logger(__name__)

DTYPES = (torch.float16, torch.bfloat16)
"""Dtypes for which flex attention has matrix instructions."""

HEAD_DIMS = range(16, 257)
"""Widths of heads that it computes."""

FEWEST_KEYS = 128
"""Keys from which it is faster: it computes whole blocks of so many."""


def bounded_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, softcap: float
) -> torch.Tensor | None:
    """Attention with bounded scores as one kernel, also within a program that is compiled as a whole.

    Args:
        query: (B, heads, Nq, head_dim).
        key: (B, heads, Nk, head_dim).
        value: (B, heads, Nk, head_dim).
        scaling: factor of the dot products.
        softcap: bound of the scores.

    Returns:
        (B, heads, Nq, head_dim), or `None` where another way is faster or the only one: on other devices than CUDA's,
        in float32, with few keys, where a program is exported.
    """
    if query.device.type != "cuda" or query.dtype not in DTYPES or query.shape[-1] not in HEAD_DIMS:
        return None
    if torch.compiler.is_exporting() or key.shape[2] < FEWEST_KEYS:
        return None
    kernel = _kernel(scaling, softcap)
    if torch.compiler.is_compiling():
        return kernel.function(query, key, value)
    return kernel.attempt(query, key, value)


class Kernel:
    """A function of tensors that is compiled when it is first called."""

    def __init__(self, function: Callable):
        self.function = function
        self._compiled: Callable | None = None
        self._fails = os.environ.get("TORCH_COMPILE_DISABLE") == "1"

    def attempt(self, *tensors: torch.Tensor) -> torch.Tensor | None:
        """What the function gives, or `None` where it can't be compiled or called compiled."""
        if self._fails or is_watched(tensors[0]):
            return None
        if self._compiled is None:
            self._compiled = torch.compile(self.function, fullgraph=True)
        try:
            return self._compiled(*tensors)
        except Exception as error:
            if not _is_of_compiler(error):
                raise
            self._fails = True
            logger.warning(f"PyTorch can't compile flex attention here, and a slower way stands in for it: {error}")
        return None


@cache
def _kernel(scaling: float, softcap: float) -> Kernel:
    """Flex attention with a factor and a bound of the scores, which are part of what is compiled."""
    from torch.nn.attention.flex_attention import flex_attention

    def bound(score: torch.Tensor, *place: torch.Tensor) -> torch.Tensor:
        return softcap * torch.tanh(score / softcap)

    def bounded(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return flex_attention(query, key, value, score_mod=bound, scale=scaling)

    return Kernel(bounded)


def _is_of_compiler(error: Exception) -> bool:
    """Whether an error comes from compiling, not from running out of memory and the like."""
    return any(
        cls.__module__.startswith(("torch._dynamo", "torch._inductor", "triton")) for cls in type(error).__mro__
    )
