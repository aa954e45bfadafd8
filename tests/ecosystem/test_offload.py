"""accelerate keeps weights in memory or on disk and brings those of a module as it is called."""

import pytest
from accelerate import disk_offload

from tests.harness.citizen import answers
from tests.harness.compare import assert_close
from tests.harness.family_spec import all_states
from tests.harness.tolerances import EXACT

from .every_model import build, every_model


pytestmark = [pytest.mark.ecosystem, pytest.mark.slow]


@every_model
def test_disk_offload(spec, model, tmp_path):
    """The harness does the same in memory."""
    built, inputs = build(spec, model), spec.inputs(model)
    expected, answered = all_states(built, inputs), answers(built, inputs)
    disk_offload(built, tmp_path, offload_buffers=True)
    assert {parameter.device.type for parameter in built.parameters()} == {"meta"}
    assert_close("outputs", expected, all_states(built, inputs), EXACT)
    for name, value in answered.items():
        assert_close(name, {name: value}, answers(built, inputs), EXACT)


@every_model
def test_device_map(spec, model, tmp_path):
    """`device_map="auto"` splits a model between what memory there is and the disk."""
    built, inputs = build(spec, model), spec.inputs(model)
    expected = all_states(built, inputs)
    total = sum(parameter.numel() * parameter.element_size() for parameter in built.parameters())
    built.save_pretrained(tmp_path, max_shard_size="20KB")
    loaded = model.model_class.from_pretrained(
        tmp_path,
        device_map="auto",
        max_memory={"cpu": total // 2, "disk": 10 * total},
        offload_folder=tmp_path / "offloaded",
        attn_implementation="sdpa",
    )
    assert "disk" in loaded.hf_device_map.values()
    assert_close("outputs", expected, all_states(loaded.eval(), inputs), EXACT)
