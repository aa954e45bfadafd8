"""The stand-in for flash attention computes attention, refuses what the packages refuse, and shows callers' faults."""

import inspect
import unittest
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.harness.attention import AttentionMixin
from tests.harness.flash_stand_in import FUNCTIONS, flash_stand_in
from tests.videoprism.spec import SPEC, VISION_MODEL
from vidformers.layers import attention as layer
from vidformers.layers.attention import attention


BACKENDS = tuple(FUNCTIONS)


def states(*shape: int, dtype: torch.dtype = torch.bfloat16) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(shape).to(dtype) for _ in range(3)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_computes_attention(backend):
    query, key, value = states(2, 5, 4, 8)
    key, value = key[:, :, ::2], value[:, :, ::2]  # fewer heads
    expected = nn.functional.scaled_dot_product_attention(
        *(part.float().transpose(1, 2) for part in (query, key, value)), scale=0.3, enable_gqa=True
    )
    actual = FUNCTIONS[backend][0](query, key, value, softmax_scale=0.3)
    torch.testing.assert_close(actual.transpose(1, 2).float(), expected, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_sequences_one_after_the_other_are_apart(backend):
    whole, joined = FUNCTIONS[backend]
    parts = states(7, 2, 8)
    bounds = torch.tensor([0, 3, 7], dtype=torch.int32)
    expected = torch.cat([whole(*(part[None, rows] for part in parts))[0] for rows in (slice(3), slice(3, 7))])
    assert torch.equal(joined(*parts, bounds, bounds, 4, 4), expected)


@pytest.mark.parametrize(
    "change",
    [
        lambda q, k, v: (q.float(), k.float(), v.float()),
        lambda q, k, v: (q, k.half(), v),
        lambda q, k, v: (q.transpose(1, 2), k, v),
        lambda q, k, v: (q[0], k[0], v[0]),
    ],
    ids=["float32", "two dtypes", "heads before tokens", "no batch"],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_it_refuses_what_the_packages_refuse(backend, change):
    with pytest.raises(AssertionError):
        FUNCTIONS[backend][0](*change(*states(2, 5, 3, 8)))


def test_dropout_is_known_to_version_2_alone():
    assert ["dropout_p" in inspect.signature(FUNCTIONS[name][0]).parameters for name in BACKENDS] == [True, False]
    query, key, value = states(1, 64, 1, 8)
    dropped = FUNCTIONS["flash_attention_2"][0](query, key, torch.ones_like(value), dropout_p=0.5)
    assert 0.8 < dropped.mean() < 1.2
    assert dropped.std() > 0.05


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("backend", BACKENDS)
def test_attention_calls_it_as_it_computes_itself(backend, softcap):
    query, key, value = states(2, 3, 6, 8)
    module = nn.Module().eval()
    module.is_causal = False

    def attended(name: str) -> torch.Tensor:
        module.config = SimpleNamespace(_attn_implementation=name)
        return attention(module, query, key, value, scaling=1.5, softcap=softcap)[0]

    with flash_stand_in(backend):
        torch.testing.assert_close(attended(backend), attended("eager"), atol=2e-2, rtol=2e-2)


class Shared(AttentionMixin, unittest.TestCase):
    """The shared tests of attention, none of them written out."""

    __test__ = False


FAULTS = {
    "another factor": lambda options: {**options, "scaling": 1.1 * options["scaling"]},
    "no bound": lambda options: {name: value for name, value in options.items() if name != "softcap"},
    "causal": lambda options: {**options, "is_causal": True},
    "heads before tokens": None,
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_shared_tests_notice_a_fault(backend, fault, monkeypatch):
    true = layer.ALL_ATTENTION_FUNCTIONS[backend]

    def call(module, query, key, value, mask, **options):
        if FAULTS[fault] is None:
            return true(module, *(part.transpose(1, 2) for part in (query, key, value)), mask, **options)
        return true(module, query, key, value, mask, **FAULTS[fault](options))

    case = Shared()
    case.spec, case.made = SPEC, {}
    case.check_forward(VISION_MODEL, backend, torch.float16)
    monkeypatch.setattr(layer, "ALL_ATTENTION_FUNCTIONS", {backend: call})
    with pytest.raises((AssertionError, RuntimeError)):
        case.check_forward(VISION_MODEL, backend, torch.float16)
