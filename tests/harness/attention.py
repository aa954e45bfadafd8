"""Attention: every backend gives the same numbers, forward and backward."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from unittest import SkipTest

import pytest
import torch

from .compare import assert_close
from .family_spec import ModelSpec, all_states, to_device, to_dtype
from .family_test import FamilyTest, models, over
from .flash_stand_in import flash_stand_in
from .modeling import MACHINE_CODE_ELSEWHERE, gradients, training_inputs
from .tolerances import DTYPE_GRADIENTS, DTYPES, REORDERED


FLASH = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}
BACKENDS = ("eager", "sdpa", "flex_attention", *FLASH)
# Flash attention has no float32. Of its two versions one is called in both other dtypes.
COMPUTATIONS = (
    *((backend, dtype) for backend in BACKENDS[:3] for dtype in DTYPES),
    ("flash_attention_2", torch.float16),
    *((backend, torch.bfloat16) for backend in FLASH),
)


@contextmanager
def device_of(backend: str, backward: bool = False) -> Iterator[torch.device]:
    """Where a backend runs. Flash attention does on a CPU too, by a stand-in, if its package or a GPU isn't there.

    The test is skipped, with the reason, if there is no such device.
    """
    here = torch.cuda.is_available()
    if backend == "flex_attention" and backward and not here:
        raise SkipTest(f"{backend} computes this on CUDA devices alone, and there is none")
    if backend in FLASH and not (here and find_spec(FLASH[backend])):
        with flash_stand_in(backend):
            yield torch.device("cpu")
    else:
        yield torch.device("cuda" if backend in FLASH or backward and backend == "flex_attention" else "cpu")


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
        self.check_forward(model, backend, dtype)

    def check_forward(self, model: ModelSpec, backend: str, dtype: torch.dtype) -> None:
        """A backend gives what eager attention in float32 does."""
        inputs, expected = self.spec.inputs(model), self.states(model)
        with device_of(backend) as device, torch.compiler.set_stance("force_eager"):
            built = self.spec.build(model, attention=backend).to(device, dtype)
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
        inputs = training_inputs(self.spec, model)
        expected = self.once("gradients", model, lambda: gradients(self.spec.build(model).train(), model, inputs))
        with device_of(backend, backward=True) as device:
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
