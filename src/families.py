"""The families that there are: the records of the rooms in `models`, collected. Importing it loads no model code."""

from importlib import import_module

from .models.records import Family, Part


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

PROBE = Part(
    model_type="attentive_probe",
    config_class="AttentiveProbeConfig",
    auto_models={
        "AutoModel": "AttentiveProbeForVideoClassification",
        "AutoModelForVideoClassification": "AttentiveProbeForVideoClassification",
    },
)
"""A model of no family: its encoder is of any."""


def public_modules() -> dict[str, str]:
    """For each public name of all models, the module that defines it, relative to `vidformers`."""
    of_families = {
        name: f".models.{family.model_type}{module}"
        for family in FAMILIES.values()
        for name, module in family.modules.items()
    }
    return of_families | dict.fromkeys((PROBE.config_class, *PROBE.auto_models.values()), ".models.attentive_probe")
