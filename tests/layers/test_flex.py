"""Flex attention for bounded scores: when it is taken, what happens where it can't be compiled, what it computes."""

import logging
from types import SimpleNamespace

import pytest
import torch
from torch._dynamo.exc import Unsupported
from torch._subclasses.fake_tensor import FakeTensorMode

from vidformers.layers import flex
from vidformers.layers.flex import Kernel, bounded_attention


def states(tokens: int, dtype: torch.dtype = torch.bfloat16, device: str = "cpu") -> list[torch.Tensor]:
    return [torch.randn(2, 2, tokens, 16, dtype=dtype, device=device) for _ in range(3)]


def test_other_devices_have_other_ways():
    assert bounded_attention(*states(256), 0.25, 5.0) is None
    assert bounded_attention(*states(256, device="meta"), 0.25, 5.0) is None


def test_conditions_on_a_gpu(monkeypatch):
    """Where flex attention is taken, the attempt is recorded."""
    tried = []
    monkeypatch.setattr(Kernel, "attempt", lambda self, *tensors: tried.append(tensors[0].shape[2]))

    def ask(tokens: int, width: int, dtype: torch.dtype) -> None:
        part = SimpleNamespace(device=torch.device("cuda"), dtype=dtype, shape=(2, 2, tokens, width))
        bounded_attention(part, part, part, 0.25, 5.0)

    ask(256, 64, torch.bfloat16)
    ask(127, 64, torch.bfloat16)
    ask(300, 64, torch.float32)
    ask(400, 8, torch.bfloat16)
    ask(128, 88, torch.float16)
    assert tried == [256, 128]


def test_nobody_is_bypassed():
    kernel = Kernel(torch.add)
    with FakeTensorMode():
        assert kernel.attempt(*states(4)[:2]) is None
    with torch.device("cpu"):
        assert kernel.attempt(*states(4)[:2]) is None
    torch.func.vmap(lambda part: [part, kernel.attempt(part, part)][0])(torch.ones(2, 3))
    assert kernel._compiled is None


@pytest.mark.parametrize("error", [Unsupported("no"), RuntimeError("out of memory")], ids=["compiler", "another"])
def test_only_failures_to_compile_are_survived(error, monkeypatch, caplog):
    calls = []

    def compiled(*tensors):
        calls.append(len(tensors))
        raise error

    monkeypatch.setattr(torch, "compile", lambda function, **options: compiled)
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    monkeypatch.setattr(flex.logger, "propagate", True)
    kernel = Kernel(torch.add)
    if type(error) is RuntimeError:
        with pytest.raises(RuntimeError, match="out of memory"):
            kernel.attempt(*states(4)[:2])
        return
    assert kernel.attempt(*states(4)[:2]) is None
    assert kernel.attempt(*states(4)[:2]) is None
    assert calls == [2]
    assert "slower way" in caplog.text


def test_it_can_be_turned_off(monkeypatch):
    monkeypatch.setenv("TORCH_COMPILE_DISABLE", "1")
    assert Kernel(torch.add).attempt(*states(4)[:2]) is None


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
def test_it_computes_bounded_attention(compiled):
    query, key, value = states(140, torch.float32)
    kernel = flex._kernel(0.25, 3.0)
    with torch.no_grad():
        actual = (kernel.attempt if compiled else kernel.function)(query, key, value)
    scores = 3.0 * torch.tanh(query @ key.mT * 0.25 / 3.0)
    torch.testing.assert_close(actual, scores.softmax(-1) @ value, atol=1e-5, rtol=1e-5)
