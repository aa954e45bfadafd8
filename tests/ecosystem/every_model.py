"""Every model class of every family, small, for the tools to work on."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from tests.harness.family_spec import FamilySpec, ModelSpec
from tests.specs import SPECS


CASES = [(spec, model) for spec in SPECS for model in spec.models]

WHOLE = [(spec, spec.models[-1]) for spec in SPECS]
"""One model of each family, with the most kinds of layers, where a tool's further settings are tried."""


def _over(cases: list[tuple[FamilySpec, ModelSpec]]) -> Callable:
    return pytest.mark.parametrize("spec, model", cases, ids=[model.label for _, model in cases])


every_model, one_of_each_family = _over(CASES), _over(WHOLE)


def build(spec: FamilySpec, model: ModelSpec, **fields: Any) -> PreTrainedModel:
    """A model with one block of each kind and the default attention."""
    return spec.build(model, attention="sdpa", **{**model.shallow, **fields})


def linear_layers(model: torch.nn.Module) -> list[str]:
    """Names of the linear layers."""
    return [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
