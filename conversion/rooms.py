"""The checkpoint maps, one module a family, each with a `MAP`."""

from importlib import import_module

from vidformers.conversion.core import FamilyMap


def family_map(model_type: str) -> FamilyMap:
    """The map of the family whose configurations have this `model_type`."""
    return import_module(f"{__package__}.{model_type}.checkpoint").MAP
