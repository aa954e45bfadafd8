"""Models in half precision on CPUs without instructions for it: whatever runs in them multiplies in float32."""

import pytest
import torch
from torch import nn

from vidformers import VJEPA2Config, VJEPA2Model
from vidformers.layers import cpu


@pytest.fixture
def model(monkeypatch) -> VJEPA2Model:
    """A bfloat16 model, as on a CPU that has no instructions for it."""
    monkeypatch.setattr(cpu, "FALLBACK_DTYPES", (torch.bfloat16,))
    config = VJEPA2Config(
        crop_size=32, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, use_predictor=False
    )
    torch.manual_seed(0)
    return VJEPA2Model(config).bfloat16()


VIDEO = torch.randn(1, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0)).bfloat16()


class DtypesOfProducts(torch.utils._python_dispatch.TorchDispatchMode):
    """Notes the dtypes of everything that is multiplied."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if any(word in str(function) for word in ("mm", "convolution")):
            self.seen |= {each.dtype for each in args if isinstance(each, torch.Tensor)}
        return function(*args, **(kwargs or {}))


class LowRank(nn.Module):
    """A linear layer with a low-rank addition, as adapters put it in the place of the layer."""

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.layer = layer
        self.down = nn.Linear(layer.in_features, 2, bias=False).to(layer.weight.dtype)
        self.up = nn.Linear(2, layer.out_features, bias=False).to(layer.weight.dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + self.up(self.down(x))


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_every_product_is_in_float32(model, attention, wrapped):
    model.eval().set_attn_implementation(attention)
    if wrapped:
        for layer in model.encoder.layer:
            layer.attention.query, layer.mlp.fc1 = LowRank(layer.attention.query), LowRank(layer.mlp.fc1)
    with torch.no_grad(), DtypesOfProducts() as products:
        output = model(VIDEO).last_hidden_state
    assert output.dtype == torch.bfloat16
    assert products.seen == {torch.float32}


def test_blocks_that_run_again_run_as_before(model):
    """Else the backward pass finds other tensors than the forward pass left."""

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        model(VIDEO).last_hidden_state.float().square().sum().backward()
        return [parameter.grad for parameter in model.parameters()]

    model.train()
    expected = gradients()
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    assert all(map(torch.equal, gradients(), expected))


@pytest.mark.slow
def test_a_compiled_part_runs_in_a_model_that_is_not_compiled(model):
    model.eval()
    with torch.no_grad():
        expected = model(VIDEO).last_hidden_state
        model.encoder.layer[1].compile(backend="eager")
        actual = model(VIDEO).last_hidden_state
    torch.testing.assert_close(actual, expected, atol=4e-2, rtol=4e-2)
