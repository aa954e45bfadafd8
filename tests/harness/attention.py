"""Attention: every backend gives the same numbers, forward and backward."""

from importlib.util import find_spec
from unittest import SkipTest

import pytest
import torch

from .compare import assert_close
from .family_spec import ModelSpec, all_states, to_device, to_dtype
from .family_test import FamilyTest, models, over
from .modeling import MACHINE_CODE_ELSEWHERE, gradients, training_inputs
from .tolerances import DTYPE_GRADIENTS, DTYPES, REORDERED


FLASH = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}
BACKENDS = ("eager", "sdpa", "flex_attention", *FLASH)
# Flash attention has no float32.
COMPUTATIONS = tuple(
    (backend, dtype) for backend in BACKENDS for dtype in DTYPES if backend not in FLASH or dtype != torch.float32
)


def device_of(backend: str) -> torch.device:
    """Where a backend runs; the test is skipped, with the reason, if that isn't here."""
    if backend not in FLASH:
        return torch.device("cpu")
    if find_spec(FLASH[backend]) is None:
        raise SkipTest(f"the package {FLASH[backend]} is not installed")
    return cuda(backend)


def cuda(backend: str) -> torch.device:
    """A device for what a CPU doesn't compute; the test is skipped, with the reason, if there is none."""
    if not torch.cuda.is_available():
        raise SkipTest(f"{backend} computes this on CUDA devices alone, and there is none")
    return torch.device("cuda")


class AttentionMixin(FamilyTest):
    """Tests of a model class under every attention backend; eager in float32 decides.

    flex_attention compiles itself, for seconds. Here it runs as it is written; `test_compiled_flex_attention` and
    tests/layers compile it.
    """

    @over(models)
    def test_attention_matters(self, model: ModelSpec):
        """Nothing below could fail if every token attended to all others alike."""
        with torch.no_grad():
            output = self.shared(model)(**self.spec.inputs(model), output_attentions=True)
        for tower in model.towers:
            for probabilities in tower.record(output, "attentions"):
                uniform = 1 / probabilities.shape[-1]
                assert probabilities.max(-1).values.mean() > 2 * uniform

    @over(models, COMPUTATIONS)
    def test_forward(self, model: ModelSpec, backend: str, dtype: torch.dtype):
        device, inputs, expected = device_of(backend), self.spec.inputs(model), self.states(model)
        built = self.spec.build(model, attention=backend).to(device, dtype)
        with torch.compiler.set_stance("force_eager"):
            actual = all_states(built, to_device(to_dtype(inputs, dtype), device))
        terms = model.terms(self.shared(model), expected)
        assert_close(f"{backend} in {dtype} and eager in float32", expected, actual, DTYPES[dtype], terms)

    @pytest.mark.slow
    def test_compiled_flex_attention(self):
        """The family's first model with one block of each kind; a dtype more would only compile once more."""
        if not self.spec.machine_code:
            raise SkipTest(MACHINE_CODE_ELSEWHERE)
        torch._dynamo.reset()
        model = self.spec.models[0]
        inputs = self.spec.inputs(model, **model.shallow)
        expected, actual = (
            all_states(self.spec.build(model, attention=backend, **model.shallow), inputs)
            for backend in ("eager", "flex_attention")
        )
        assert_close("compiled flex_attention and eager", expected, actual, REORDERED)

    @over(models, COMPUTATIONS[1:])
    def test_backward(self, model: ModelSpec, backend: str, dtype: torch.dtype):
        device = cuda(backend) if backend == "flex_attention" else device_of(backend)
        inputs = training_inputs(self.spec, model)
        expected = self.once("gradients", model, lambda: gradients(self.spec.build(model).train(), model, inputs))
        built = self.spec.build(model, attention=backend).to(device, dtype).train()
        actual = gradients(built, model, to_device(to_dtype(inputs, dtype), device))
        assert_close(f"gradients, {backend} in {dtype}", expected, actual, DTYPE_GRADIENTS[dtype])

    @over(models)
    def test_probabilities_on_request(self, model: ModelSpec):
        """A backend that holds no probabilities gives them all the same where they are asked for."""
        inputs = self.spec.inputs(model)
        expected = all_states(self.shared(model), inputs, output_attentions=True)
        actual = all_states(self.spec.build(model, attention="sdpa"), inputs, output_attentions=True)
        assert any("attentions" in name for name in expected)
        assert_close("probabilities under sdpa", expected, actual, REORDERED)
