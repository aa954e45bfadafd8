"""Parameters of one number as vectors: FSDP2 cuts parameters along an axis and takes none without one."""

from typing import Any

import torch
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
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


def read_scalar_as_vector(model_class: str, name: str) -> None:
    """Let `from_pretrained` take a parameter of shape (1,) from directories that hold it as a scalar.

    Args:
        model_class: name of the class.
        name: of the parameter.
    """
    converter = WeightConverter(name, name, operations=[_AsVector()])
    register_checkpoint_conversion_mapping(model_class, [converter], overwrite=True)
