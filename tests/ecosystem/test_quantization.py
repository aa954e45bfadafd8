"""bitsandbytes, torchao and PyTorch's own quantization find every linear layer by its exact class."""

import bitsandbytes as bnb
import pytest
import torch
from torch import nn
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig, quantize_
from transformers import BitsAndBytesConfig

from tests.harness.compare import assert_close
from tests.harness.family_spec import all_states
from tests.harness.tolerances import REORDERED, Tolerance

from .every_model import build, every_model, linear_layers, one_of_each_family


pytestmark = [pytest.mark.ecosystem, pytest.mark.slow]

QUANTIZED = Tolerance(
    0.2, 0.1, "activations in int8 besides weights, over ten layers of a few dozen channels, or weights in int8"
)


def check_torchao(spec, model, scheme) -> None:
    built, inputs = build(spec, model), spec.inputs(model)
    expected = all_states(built, inputs)
    terms = model.terms(built, expected)
    layers = linear_layers(built)
    quantize_(built, scheme)
    weights = {type(built.get_submodule(name).weight).__name__ for name in layers}
    assert weights == {"Int8Tensor"}
    assert_close("int8", expected, all_states(built, inputs), QUANTIZED, terms)


@every_model
def test_torchao(spec, model):
    check_torchao(spec, model, Int8WeightOnlyConfig())


@one_of_each_family
def test_torchao_of_activations_too(spec, model):
    check_torchao(spec, model, Int8DynamicActivationInt8WeightConfig())


@one_of_each_family
def test_dynamic_quantization_of_pytorch(spec, model):
    built, inputs = build(spec, model), spec.inputs(model)
    expected = all_states(built, inputs)
    terms = model.terms(built, expected)
    quantized = torch.ao.quantization.quantize_dynamic(built, {nn.Linear})
    assert not [name for name, module in quantized.named_modules() if type(module) is nn.Linear]
    assert_close("quantize_dynamic", expected, all_states(quantized, inputs), QUANTIZED, terms)


@every_model
def test_bitsandbytes(spec, model, tmp_path):
    """All layers but those that transformers spares, the last one and those of output embeddings."""
    check_bitsandbytes(spec, model, 8, tmp_path)


@one_of_each_family
def test_bitsandbytes_with_four_bits(spec, model, tmp_path):
    """Compared with a plain model of the same rounded weights."""
    check_bitsandbytes(spec, model, 4, tmp_path)


def check_bitsandbytes(spec, model, bits, folder) -> None:
    built, inputs = build(spec, model), spec.inputs(model)
    expected = all_states(built, inputs)
    terms = model.terms(built, expected)
    built.save_pretrained(folder)
    config = BitsAndBytesConfig(**{f"load_in_{bits}bit": True})
    loaded = model.model_class.from_pretrained(
        folder, quantization_config=config, attn_implementation="sdpa", dtype=torch.float32, device_map="cpu"
    )
    kind = {8: bnb.nn.Linear8bitLt, 4: bnb.nn.Linear4bit}[bits]
    replaced = {name: module for name, module in loaded.named_modules() if isinstance(module, kind)}
    spared = [name for name in linear_layers(loaded) if type(loaded.get_submodule(name)) is nn.Linear]
    assert replaced and len(spared) <= 2, f"{spared} are linear layers still"
    if bits == 4:
        for name, layer in replaced.items():
            # bitsandbytes' kernel for AVX-512 takes only layers whose number of rows is a multiple of 32.
            layer.support_avx512bf16_for_cpu = False
            weight = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
            built.get_submodule(name).weight.data.copy_(weight)
        expected = all_states(built, inputs)
    tolerance = QUANTIZED if bits == 8 else REORDERED
    assert_close(f"{bits} bits", expected, all_states(loaded.eval(), inputs), tolerance, terms)
