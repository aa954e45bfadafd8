"""Parameters of one number."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.pe_core.spec import CORE_MODEL
from tests.pe_core.spec import SPEC as PE_CORE
from tests.videoprism.spec import CLIP_MODEL
from tests.videoprism.spec import SPEC as VIDEOPRISM


@pytest.mark.parametrize(
    "spec, model, fields",
    [(PE_CORE, CORE_MODEL, {}), (VIDEOPRISM, CLIP_MODEL, {"logit_scale_init_value": 1.5})],
    ids=["PE core", "VideoPrism"],
)
def test_directories_with_a_scalar_load(spec, model, fields, tmp_path):
    """As vidformers wrote them before the parameter was a vector."""
    built = spec.build(model, **model.shallow, **fields)
    with torch.no_grad():
        built.logit_scale.fill_(0.7)
    built.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert tensors["logit_scale"].shape == (1,)
    save_file({**tensors, "logit_scale": tensors["logit_scale"][0].clone()}, tmp_path / "model.safetensors")
    loaded, info = model.model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert torch.equal(loaded.logit_scale, torch.tensor([0.7]))
