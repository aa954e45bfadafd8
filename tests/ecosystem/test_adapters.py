"""PEFT: adapters learn in every layer, are merged, and are saved and loaded."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from tests.harness.compare import assert_close
from tests.harness.family_spec import all_states
from tests.harness.modeling import training_inputs
from tests.harness.tolerances import NOTICEABLE, REORDERED
from tests.specs import SPECS

from .every_model import build, every_model, linear_layers


pytestmark = [pytest.mark.ecosystem, pytest.mark.slow]

# What docs/integrations.md names for every family: the projections of queries, keys and values.
ATTENTION = {
    "vjepa2": ["query", "key", "value", "q_proj", "k_proj", "v_proj"],
    "videoprism": ["q_proj", "k_proj", "v_proj"],
    "videomae": ["query", "key", "value"],
    "pe_video": ["q_proj", "k_proj", "v_proj", "qkv", "q", "kv", "Wqkv"],
    "pe_core": ["qkv", "q", "kv"],
}


def adapted(spec, model, targets):
    config = LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
    torch.manual_seed(0)
    return get_peft_model(build(spec, model), config)


def targets_of(wrapped) -> set[str]:
    """The names of the layers that have an adapter, as in the model without."""
    suffix, prefix = ".lora_A.default", "base_model.model."
    names = (name for name in linear_layers(wrapped) if name.endswith(suffix))
    return {name.removeprefix(prefix).removesuffix(suffix) for name in names}


@every_model
def test_lora(spec, model, tmp_path):
    """In every linear layer: all learn, they can be merged, and they are saved and loaded."""
    inputs = spec.inputs(model)
    plain = all_states(build(spec, model), inputs)
    wrapped = adapted(spec, model, "all-linear")
    assert targets_of(wrapped) == set(linear_layers(build(spec, model)))
    expected = all_states(wrapped.eval(), inputs)
    assert (expected[model.output] - plain[model.output]).abs().max() > NOTICEABLE

    model.loss(wrapped.train()(**training_inputs(spec, model))).backward()
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name and not is_idle(name, model):
            assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name

    wrapped.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(build(spec, model), tmp_path).eval()
    terms = model.terms(loaded, expected)
    assert_close("loaded", expected, all_states(loaded, inputs), REORDERED, terms)
    assert_close("merged", expected, all_states(loaded.merge_and_unload(), inputs), REORDERED, terms)


@pytest.mark.parametrize("spec", SPECS, ids=[spec.family.model_type for spec in SPECS])
def test_names_of_attention(spec):
    """Every model of a family has layers of these names, and each name is that of some layer."""
    names = ATTENTION[spec.family.model_type]
    found = [{name.rpartition(".")[2] for name in targets_of(adapted(spec, model, names))} for model in spec.models]
    assert all(found) and set.union(*found) == set(names)


def is_idle(name: str, model) -> bool:
    """Whether an adapter belongs to a layer that takes no part in a step of training, as the spec says."""
    layer = name.removeprefix("base_model.model.").partition(".lora_")[0]
    return f"{layer}.weight" in model.idle
