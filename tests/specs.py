"""One spec a family, in the room named after it, found by the families that are registered."""

from importlib import import_module

from tests.harness.family_spec import FamilySpec
from vidformers.families import FAMILIES


def load_spec(model_type: str) -> FamilySpec | None:
    """The spec of a family, `None` if nobody wrote one."""
    try:
        return import_module(f"tests.{model_type}.spec").SPEC
    except ModuleNotFoundError as error:
        if error.name != f"tests.{model_type}.spec":
            raise
        return None


SPECS = tuple(spec for spec in map(load_spec, FAMILIES) if spec)
