"""The families that there are: the records of the rooms in `models`, collected. Importing it loads no model code."""

from importlib import import_module

from .models.records import Family


ROOMS = (
    "vjepa2",
    "videoprism",
    "videomae",
    "pe_video",
    "pe_core",
)
"""The folders of `models` that hold a family, in the order in which they are listed everywhere."""

FAMILIES: dict[str, Family] = {name: import_module(f".models.{name}.record", __package__).FAMILY for name in ROOMS}
"""The families by `config.model_type`, which is also the name of the room."""


def public_modules() -> dict[str, str]:
    """For each public name of all families, the module that defines it, relative to `vidformers`."""
    return {
        name: f".models.{family.model_type}{module}"
        for family in FAMILIES.values()
        for name, module in family.modules.items()
    }
