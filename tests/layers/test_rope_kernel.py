"""Rotary positions as one kernel: when it is taken, and what happens where it doesn't run."""

import logging
import sys
from types import SimpleNamespace

import pytest
import torch

from vidformers.layers import modules, rope


@pytest.fixture
def kernel(monkeypatch):
    """Stands in for the module of the kernel; `turn` is to be set."""
    stand_in = SimpleNamespace(turn=None)
    monkeypatch.setitem(sys.modules, "vidformers.layers.rope_kernel", stand_in)
    monkeypatch.setattr(rope, "find_spec", lambda name: name)
    rope._runs_kernels.cache_clear()
    yield stand_in
    rope._runs_kernels.cache_clear()


def test_a_kernel_that_fails_is_tried_once(kernel, monkeypatch, caplog):
    calls = []

    def turn(*tensors):
        calls.append(tensors)
        raise RuntimeError("Failed to find C compiler")

    kernel.turn = turn
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    assert not rope._runs_kernels(torch.device("cpu"))
    assert not rope._runs_kernels(torch.device("cpu"))
    assert len(calls) == 1
    assert "Failed to find C compiler" in caplog.text


def test_nothing_is_tried_without_triton(kernel, monkeypatch):
    monkeypatch.setattr(rope, "find_spec", lambda name: None)
    assert not rope._runs_kernels(torch.device("cpu"))


class OnGpu(torch.Tensor):
    """A tensor that says it is on a GPU."""

    is_cuda = True


def test_when_it_is_taken(kernel, monkeypatch):
    """On a GPU, unless gradients are wanted or channels don't lie side by side."""
    kernel.turn = lambda x, own, neighbor: x
    monkeypatch.setattr(modules, "type", lambda x: torch.Tensor, raising=False)
    x = torch.ones(2, 3, 4, 8)
    assert not rope._has_kernel_for(x)
    on_gpu = x.as_subclass(OnGpu)
    assert rope._has_kernel_for(on_gpu)
    assert not rope._has_kernel_for(torch.ones(2, 4, 3, 8).transpose(1, 2).as_subclass(OnGpu))
    with_gradients = x.as_subclass(OnGpu).requires_grad_()
    assert not rope._has_kernel_for(with_gradients)
    with torch.no_grad():
        assert rope._has_kernel_for(with_gradients)
    with torch.device("meta"):
        assert not rope._has_kernel_for(on_gpu)
