"""One spec a family, in a module named after it, found by the families that are registered."""

from importlib import import_module

from harness.family_spec import FamilySpec

from vidformers.families import FAMILIES


def load_spec(model_type: str) -> FamilySpec | None:
    """The spec of a family, `None` if nobody wrote one."""
    try:
        return import_module(f"{__name__}.{model_type}").SPEC
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{model_type}":
            raise
        return None


SPECS = tuple(spec for spec in map(load_spec, FAMILIES) if spec)
