"""facebookresearch/perception_models (3e352cca) beside PE Video and the Perception Encoder under it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..load import FoundPart
from . import pe_av, pe_core


def example_calls(config: Any, architecture: str) -> dict[str, dict[str, Any]]:
    """Small calls that go through every part of a model."""
    return (pe_av if architecture.startswith("PeVideo") else pe_core).example_calls(config, architecture)


def original_stages(
    repository: Path, config: Any, found: Mapping[str, FoundPart], calls: Mapping[str, Mapping[str, Any]]
) -> dict[str, torch.Tensor]:
    """What the original models give for the calls of `example_calls`."""
    return (pe_av if "video encoder" in found else pe_core).original_stages(repository, config, found, calls)
