"""`torch.compile` for videos of changing length: one more graph for any number of frames, not one for each."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from tests.harness.compare import assert_close
from tests.harness.family_spec import VideoSize, all_states
from tests.harness.tolerances import REORDERED
from tests.specs import SPECS

from .every_model import build


pytestmark = [pytest.mark.ecosystem, pytest.mark.slow]

MOST_GRAPHS = 2
"""One for the first length and one for all others."""


@pytest.mark.parametrize("spec", SPECS, ids=[spec.family.model_type for spec in SPECS])
def test_frames_may_change(spec):
    model = next(model for model in spec.models if "text" not in model.name.lower())
    if spec.family.model_type == "pe_core":
        model = next(model for model in spec.models if model.name == "PeCoreModel")
    torch._dynamo.reset()
    built, counter = build(spec, model), CompileCounter()
    compiled = torch.compile(built, backend=counter, fullgraph=True)
    for frames in (4, 8, 12):
        inputs = spec.inputs(model, 2, VideoSize(frames, *spec.size[1:]))
        assert_close(f"{frames} frames", all_states(built, inputs), all_states(compiled, inputs), REORDERED)
    assert counter.frame_count <= MOST_GRAPHS
