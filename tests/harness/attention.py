"""Attention: every backend gives the same numbers, forward and backward."""

from importlib.util import find_spec

import pytest
import torch

from .compare import assert_close
from .family_spec import FamilySpec, ModelSpec, all_states, to_device, to_dtype
from .modeling import gradients, training_inputs
from .tolerances import DTYPE_GRADIENTS, DTYPES, REORDERED


FLASH = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}
BACKENDS = ("eager", "sdpa", "flex_attention", *FLASH)
HALF = (torch.float16, torch.bfloat16)


def device_of(backend: str) -> torch.device:
    """Where a backend runs; it is skipped, with the reason, if that isn't here."""
    if backend in FLASH:
        if not torch.cuda.is_available():
            pytest.skip(f"{backend} runs on CUDA devices alone, and there is none")
        if find_spec(FLASH[backend]) is None:
            pytest.skip(f"the package {FLASH[backend]} is not installed")
        return torch.device("cuda")
    return torch.device("cpu")


class AttentionMixin:
    """Tests of a model class under every attention backend; eager in float32 decides."""

    def test_attention_matters(self, spec: FamilySpec, model: ModelSpec):
        """Nothing below could fail if every token attended to all others alike."""
        with torch.no_grad():
            output = spec.build(model)(**spec.inputs(model), output_attentions=True)
        for tower in model.towers:
            for probabilities in tower.record(output, "attentions"):
                uniform = 1 / probabilities.shape[-1]
                assert probabilities.max(-1).values.mean() > 2 * uniform

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("backend", BACKENDS)
    def test_forward(self, spec: FamilySpec, model: ModelSpec, backend: str, dtype: torch.dtype):
        device = device_of(backend)
        if backend in FLASH and dtype == torch.float32:
            pytest.skip(f"{backend} has no float32")
        if backend == "flex_attention" and dtype in HALF and model is not spec.models[0]:
            pytest.skip(
                "flex_attention compiles anew for a dtype, which takes seconds; the first model stands for all"
            )
        inputs = spec.inputs(model)
        exact = spec.build(model)
        expected = all_states(exact, inputs)
        built = spec.build(model, attention=backend).to(device, dtype)
        inputs = to_device(to_dtype(inputs, dtype), device)
        actual = all_states(built, inputs)
        terms = model.terms(exact, expected)
        assert_close(f"{backend} in {dtype} and eager in float32", expected, actual, DTYPES[dtype], terms)

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("backend", BACKENDS)
    def test_backward(self, spec: FamilySpec, model: ModelSpec, backend: str, dtype: torch.dtype):
        device = device_of(backend)
        if backend == "eager" and dtype == torch.float32:
            pytest.skip("it is what the others are compared with")
        if backend == "flex_attention" and not torch.cuda.is_available():
            pytest.skip("torch has no backward pass of flex_attention on a CPU")
        if backend in FLASH and dtype == torch.float32:
            pytest.skip(f"{backend} has no float32")
        if backend == "flex_attention":
            device = torch.device("cuda")
        inputs = training_inputs(spec, model)
        expected = gradients(spec.build(model).train(), model, inputs)
        built = spec.build(model, attention=backend).to(device, dtype).train()
        inputs = to_device(to_dtype(inputs, dtype), device)
        actual = gradients(built, model, inputs)
        assert_close(f"gradients, {backend} in {dtype}", expected, actual, DTYPE_GRADIENTS[dtype])

    @pytest.mark.parametrize("backend", ["sdpa"])
    def test_probabilities_on_request(self, spec: FamilySpec, model: ModelSpec, backend: str):
        """Backends that hold no probabilities give them all the same where they are asked for."""
        inputs = spec.inputs(model)
        expected = all_states(spec.build(model), inputs, output_attentions=True)
        actual = all_states(spec.build(model, attention=backend), inputs, output_attentions=True)
        assert any("attentions" in name for name in expected)
        assert_close(f"probabilities under {backend}", expected, actual, REORDERED)
