"""A stand-in for the packages `flash_attn` and `flash_attn_interface`, which computes on a CPU by plain products.

It holds what these packages are called with: layouts, dtypes, names of arguments, the meaning of each. What remains
for a GPU is the kernel itself. Interface: Dao-AILab/flash-attention, `flash_attn/flash_attn_interface.py` (version 2)
and `hopper/flash_attn_interface.py` (version 3).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn
from unittest.mock import patch

import torch
from torch import nn
from transformers import PreTrainedModel, modeling_flash_attention_utils


MOST_CHANNELS = 256


def flash_attn_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: None = None,
    deterministic: bool = False,
) -> torch.Tensor:
    """Version 2: (B, Nq, heads, head_dim) of query and (B, Nk, heads or fewer, head_dim) of key and value."""
    assert alibi_slopes is None, "no family has slopes"
    _check(q, k, v, axes=4)
    return _attend(q, k, v, dropout_p, softmax_scale, causal, window_size, softcap)


def flash_attn_varlen_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: None = None,
    deterministic: bool = False,
) -> torch.Tensor:
    """Version 2 for sequences one after the other, (tokens, heads, head_dim), whose bounds are cumulated lengths.

    transformers reads the names of its arguments to find out what the package can do.
    """
    assert alibi_slopes is None, "no family has slopes"
    _check(q, k, v, axes=3)
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32, "bounds of sequences are int32"
    assert len(cu_seqlens_q) == len(cu_seqlens_k)
    assert int(cu_seqlens_q[-1]) == len(q)
    assert int(cu_seqlens_k[-1]) == len(k) == len(v)
    lengths = [bounds.diff().tolist() for bounds in (cu_seqlens_q, cu_seqlens_k)]
    assert max(lengths[0]) <= max_seqlen_q
    assert max(lengths[1]) <= max_seqlen_k
    parts = zip(q.split(lengths[0]), k.split(lengths[1]), v.split(lengths[1]), strict=True)
    options = (dropout_p, softmax_scale, causal, window_size, softcap)
    return torch.cat([_attend(*(part[None] for part in each), *options)[0] for each in parts])


def flash_attn_func_3(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    deterministic: bool = False,
) -> torch.Tensor:
    """Version 3, which has no dropout."""
    return flash_attn_func(q, k, v, 0.0, softmax_scale, causal, window_size, softcap)


def flash_attn_varlen_func_3(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    deterministic: bool = False,
) -> torch.Tensor:
    """Version 3 for sequences one after the other."""
    options = {"softmax_scale": softmax_scale, "causal": causal, "window_size": window_size, "softcap": softcap}
    return flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, **options)


def flash_attn_with_kvcache(*args: Any, **kwargs: Any) -> NoReturn:
    """Never called: no family generates."""
    raise AssertionError("a model asks for a cache of keys")


def _check(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, axes: int) -> None:
    """What the kernels refuse or read wrongly."""
    assert q.ndim == k.ndim == v.ndim == axes, f"expected {axes} axes, got {q.shape}, {k.shape}, {v.shape}"
    assert q.dtype == k.dtype == v.dtype, f"one dtype for all, got {q.dtype}, {k.dtype}, {v.dtype}"
    assert q.dtype in (torch.float16, torch.bfloat16), f"half precision alone, got {q.dtype}"
    assert k.shape == v.shape
    assert q.shape[-1] == k.shape[-1] <= MOST_CHANNELS
    assert q.shape[-2] % k.shape[-2] == 0, f"{q.shape[-2]} heads of the query and {k.shape[-2]} of the key"
    assert axes == 3 or q.shape[0] == k.shape[0]


def _attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout: float,
    scaling: float | None,
    causal: bool,
    window: tuple[int, int],
    softcap: float,
) -> torch.Tensor:
    """(B, Nq, heads, head_dim), with scores in float32."""
    groups = q.shape[2] // k.shape[2]
    k, v = (states.repeat_interleave(groups, dim=2) for states in (k, v))
    scaling = q.shape[-1] ** -0.5 if scaling is None else scaling
    scores = torch.einsum("bqhd,bkhd->bhqk", q.float(), k.float()) * scaling
    if softcap > 0:
        scores = softcap * torch.tanh(scores / softcap)
    distance = torch.arange(k.shape[1]) - torch.arange(q.shape[1])[:, None] - (k.shape[1] - q.shape[1])
    left, right = window
    if causal:
        scores = scores.masked_fill(distance > 0, -torch.inf)
    if left >= 0:
        scores = scores.masked_fill(distance < -left, -torch.inf)
    if right >= 0:
        scores = scores.masked_fill(distance > right, -torch.inf)
    probabilities = nn.functional.dropout(scores.softmax(-1), dropout)
    return torch.einsum("bhqk,bkhd->bqhd", probabilities.to(v.dtype).float(), v.float()).to(q.dtype)


FUNCTIONS: dict[str, tuple[Callable, Callable]] = {
    "flash_attention_2": (flash_attn_func, flash_attn_varlen_func),
    "flash_attention_3": (flash_attn_func_3, flash_attn_varlen_func_3),
}


@contextmanager
def flash_stand_in(backend: str) -> Iterator[None]:
    """Let transformers find the stand-in where it looks for the package of a backend, on any device."""
    utils = modeling_flash_attention_utils
    functions = (*FUNCTIONS[backend], flash_attn_with_kvcache, utils._pad_input, utils._unpad_input)
    with (
        patch.object(utils, "_lazy_imports", lambda *args, **kwargs: functions),
        patch.object(utils, "_loaded_implementation", None),
        patch.object(PreTrainedModel, "_flash_attn_can_dispatch", lambda *args, **kwargs: True),
    ):
        yield
