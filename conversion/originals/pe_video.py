"""facebookresearch/perception_models (3e352cca) beside PE Video and the Perception Encoder under it."""

from .pe_core import example_calls, original_stages


__all__ = ["example_calls", "original_stages"]
