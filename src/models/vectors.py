"""Parameters of one number as vectors: FSDP2 cuts parameters along an axis and takes none without one."""

from typing import Any

import torch
from transformers.core_model_loading import ConversionOps, WeightConverter


class _AsVector(ConversionOps):
    """A tensor as a vector if it has no axis, and otherwise as it is."""

    def convert(
        self, input_dict: dict[str, Any], source_patterns: list[str], target_patterns: list[str], **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        (found,) = input_dict.values()
        tensor = found[0] if isinstance(found, list) else found
        return {target_patterns[0]: tensor.reshape(1) if tensor.ndim == 0 else tensor}

    @property
    def reverse_op(self) -> ConversionOps:
        return self


def scalar_as_vector(name: str) -> WeightConverter:
    """What gives a parameter of shape (1,) to a model from a directory that holds it as a scalar.

    Args:
        name: of the parameter.
    """
    return WeightConverter(name, name, operations=[_AsVector()])
