"""Soft-capped attention: every backend gives what the definition gives, forward and backward, without N × N scores."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from vidformers.layers import cpu
from vidformers.layers.attention import attention


CAP = 5.0
SHAPES = {"one": (2, 3, 1, 1), "cross": (2, 2, 3, 70), "square": (2, 3, 40, 40), "blocks": (1, 2, 600, 600)}
HALF = {torch.float16: 4e-3, torch.bfloat16: 3e-2}


class Layer(nn.Module):
    """What attention wants to know about a layer."""

    is_causal = False

    def __init__(self, implementation: str = "sdpa"):
        super().__init__()
        self.config = SimpleNamespace(_attn_implementation=implementation)


def states(shape, head_dim=64, dtype=torch.float32, grad=False):
    """Query, key and value whose scores reach far beyond the cap."""
    batch, heads, num_queries, num_keys = shape
    generator = torch.Generator().manual_seed(0)
    sizes = (num_queries, 2.0), (num_keys, 2.0), (num_keys, 1.0)
    made = (
        (scale * torch.randn(batch, count, heads, head_dim, generator=generator)).to(dtype).transpose(1, 2)
        for count, scale in sizes
    )
    return [tensor.detach().requires_grad_(grad) for tensor in made]


def masks(shape):
    """A mask of keys, one of queries and keys, one for every head, and one under which some queries see nothing."""
    batch, heads, num_queries, num_keys = shape
    generator = torch.Generator().manual_seed(1)

    def random(*sizes):
        return torch.rand(*sizes, generator=generator) > 0.4

    keys = random(batch, 1, 1, num_keys)
    keys[-1] = False
    return {
        "none": None,
        "keys": keys,
        "pairs": random(1, 1, num_queries, num_keys),
        "heads": random(batch, heads, num_queries, num_keys),
        "closed": random(batch, 1, num_queries, 1),
    }


def definition(query, key, value, mask, cap):
    """Attention as the original writes it, in float64: masked scores are one very negative number."""
    query, key, value = query.double(), key.double(), value.double()
    scores = torch.einsum("bhqc,bhkc->bhqk", query, key) * query.shape[-1] ** -0.5
    if cap:
        scores = cap * torch.tanh(scores / cap)
    if mask is not None:
        scores = torch.where(mask, scores, torch.full_like(scores, -0.7 * torch.finfo(torch.float32).max))
    return torch.einsum("bhqk,bhkc->bqhc", scores.softmax(-1), value).flatten(2)


def attend(query, key, value, mask, cap=CAP, implementation="sdpa", module=None, **options):
    scaling = query.shape[-1] ** -0.5
    module = module or Layer(implementation).eval()
    return attention(module, query, key, value, scaling=scaling, softcap=cap, mask=mask, **options)[0]


def assert_near(actual, expected, tolerance):
    assert actual.isfinite().all()
    difference = (actual.double() - expected).abs().max().item()
    assert difference <= tolerance * max(1.0, expected.abs().max().item()), difference


@pytest.mark.parametrize("kind", ["none", "keys", "pairs", "heads", "closed"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("implementation", ["eager", "sdpa", "flash_attention_2"])
def test_forward(implementation, shape, kind, monkeypatch):
    """A cache of a hundred scores makes the small shapes run through every kind of block."""
    if implementation == "flash_attention_2" and kind == "none":
        pytest.skip("its own kernels run on CUDA devices alone")
    query, key, value = states(shape)
    mask = masks(shape)[kind]
    expected = definition(query, key, value, mask, CAP)
    for in_cache in (cpu.IN_CACHE, 100, 2000):
        monkeypatch.setattr(cpu, "IN_CACHE", in_cache)
        with torch.no_grad():
            assert_near(attend(query, key, value, mask, implementation=implementation), expected, 1e-5)
    assert_near(attend(query, key, value, mask, implementation=implementation), expected, 1e-5)


@pytest.mark.parametrize("kind", ["none", "keys", "pairs", "closed"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_backward(implementation, shape, kind):
    inputs = states(shape, grad=True)
    mask = masks(shape)[kind]
    expected = definition(*inputs, mask, CAP)
    direction = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    wanted = torch.autograd.grad((expected * direction).sum(), inputs)
    found = torch.autograd.grad((attend(*inputs, mask, implementation=implementation) * direction).sum(), inputs)
    for name, one, other in zip(("query", "key", "value"), found, wanted, strict=True):
        assert one.isfinite().all(), name
        assert (one - other).abs().max() <= 1e-5 * max(1.0, other.abs().max().item()), name


@pytest.mark.slow
@pytest.mark.parametrize("head_dim", [64, 88])
@pytest.mark.parametrize("kind", ["none", "keys", "pairs"])
def test_flex_attention(kind, head_dim):
    torch._dynamo.reset()
    shape = (2, 3, 40, 40)
    query, key, value = states(shape, head_dim)
    mask = masks(shape)[kind]
    with torch.no_grad():
        actual = attend(query, key, value, mask, implementation="flex_attention")
    assert_near(actual, definition(query, key, value, mask, CAP), 1e-5)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_half_precision(implementation, dtype, shape):
    query, key, value = states(shape, dtype=dtype)
    mask = masks(shape)["keys"]
    with torch.no_grad():
        actual = attend(query, key, value, mask, implementation=implementation)
    assert actual.dtype == dtype
    assert_near(actual, definition(query, key, value, mask, CAP), HALF[dtype])


@pytest.mark.parametrize("head_dim", [64, 88])
@pytest.mark.parametrize("length", [1, 2, 63, 257, 1024, 4096])
def test_lengths(length, head_dim):
    query, key, value = states((1, 1, length, length), head_dim)
    with torch.no_grad():
        assert_near(attend(query, key, value, None, cap=50.0), definition(query, key, value, None, 50.0), 1e-5)


@pytest.mark.parametrize("cap", [0, 0.0, None])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", ["none", "keys", "closed"])
def test_no_cap(cap, implementation, kind):
    shape = SHAPES["square"]
    query, key, value = states(shape)
    mask = masks(shape)[kind]
    assert_near(attend(query, key, value, mask, cap, implementation), definition(query, key, value, mask, None), 1e-5)


def test_closed_rows_average_the_values():
    query, key, value = states((2, 2, 4, 6), grad=True)
    mask = torch.zeros(2, 1, 1, 6, dtype=torch.bool)
    for implementation in ("eager", "sdpa"):
        actual = attend(query, key, value, mask, implementation=implementation)
        torch.testing.assert_close(actual, value.mean(2, keepdim=True).expand_as(query).transpose(1, 2).flatten(2))
        gradient, other = torch.autograd.grad(actual.sum(), (query, key))
        assert not gradient.any()
        assert not other.any()


def largest_tensor(run):
    """Number of elements of the largest tensor that an operation makes during a call."""
    sizes = [0]

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            result = function(*arguments, **(options or {}))
            if isinstance(result, torch.Tensor):
                sizes.append(result.numel())
            return result

    with Watch():
        run()
    return max(sizes)


def test_scores_never_exist_at_once():
    length = 2048
    query, key, value = states((1, 2, length, length), 16, grad=True)
    mask = torch.ones(1, 1, 1, length, dtype=torch.bool)
    every_score = 2 * length * length
    with torch.no_grad():
        assert largest_tensor(lambda: attend(query, key, value, mask)) <= every_score / 8
    assert largest_tensor(lambda: attend(query, key, value, mask).sum().backward()) <= every_score / 4
    assert largest_tensor(lambda: attend(query, key, value, mask, implementation="eager")) >= every_score


def test_dropout_is_the_same_in_the_backward_pass():
    """Attention is linear in the values, so that the gradient gives the output back if it drops the same."""
    query, key, value = states((1, 2, 300, 300), grad=True)
    torch.manual_seed(0)
    actual = attend(query, key, value, None, module=Layer().train(), dropout=0.5)
    direction = torch.randn_like(actual)
    gradient = torch.autograd.grad((actual * direction).sum(), value)[0]
    torch.testing.assert_close((gradient * value).sum(), (actual * direction).sum(), rtol=1e-4, atol=1e-3)
    without = attend(query, key, value, None)
    assert (without - actual).abs().max() > 0.1


def test_probabilities_on_request():
    shape = SHAPES["square"]
    query, key, value = states(shape)
    options = {"scaling": 0.125, "softcap": CAP, "mask": masks(shape)["keys"], "output_attentions": True}
    for implementation in ("eager", "sdpa"):
        attended, probabilities = attention(Layer(implementation).eval(), query, key, value, **options)
        torch.testing.assert_close(probabilities.sum(-1), torch.ones(probabilities.shape[:-1]))
        torch.testing.assert_close((probabilities @ value).transpose(1, 2).flatten(2), attended)


def test_compiles_and_exports():
    class Attend(Layer):
        def forward(self, query, key, value, mask):
            return attend(query, key, value, mask, module=self)

    query, key, value = states((1, 2, 300, 300), 16)
    mask = masks((1, 2, 300, 300))["keys"].logical_not()
    module = Attend().eval()
    expected = definition(query, key, value, mask, CAP)
    with torch.no_grad():
        compiled = torch.compile(module, fullgraph=True, backend="eager")
        assert_near(compiled(query, key, value, mask), expected, 1e-5)
        length = torch.export.Dim("length", max=5000)
        shapes = {name: {2: length} for name in ("query", "key", "value")} | {"mask": {3: length}}
        program = torch.export.export(module, (query, key, value, mask), dynamic_shapes=shapes).module()
        shorter = [tensor[:, :, :77] for tensor in (query, key, value)]
        expected = definition(*shorter, mask[..., :77], CAP)
        assert_near(program(*shorter, mask[..., :77]), expected, 1e-5)
    inputs = [tensor.requires_grad_() for tensor in (query, key, value)]
    wanted = torch.autograd.grad(module(*inputs, mask).square().sum(), inputs)
    found = torch.autograd.grad(compiled(*inputs, mask).square().sum(), inputs)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
