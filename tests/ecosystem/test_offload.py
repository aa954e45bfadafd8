"""accelerate keeps weights in memory or on disk and brings those of a module as it is called."""

import pytest

from tests.harness.citizen import answers
from tests.harness.compare import assert_close
from tests.harness.family_spec import all_states
from tests.harness.tolerances import EXACT

from .every_model import build, every_model


pytestmark = [pytest.mark.ecosystem, pytest.mark.slow]


@every_model
def test_device_map(spec, model, tmp_path):
    """`device_map="auto"` splits a model between what memory there is and the disk. The harness moves all of it."""
    built, inputs = build(spec, model), spec.inputs(model)
    expected, answered = all_states(built, inputs), answers(built, inputs)
    total = sum(parameter.numel() * parameter.element_size() for parameter in built.parameters())
    built.save_pretrained(tmp_path, max_shard_size="20KB")
    loaded = model.model_class.from_pretrained(
        tmp_path,
        device_map="auto",
        max_memory={"cpu": total // 2, "disk": 10 * total},
        offload_folder=tmp_path / "offloaded",
        attn_implementation="sdpa",
    ).eval()
    assert "disk" in loaded.hf_device_map.values()
    assert_close("outputs", expected, all_states(loaded, inputs), EXACT)
    if answered:
        assert_close("methods", answered, answers(loaded, inputs), EXACT)
