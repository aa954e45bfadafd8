"""The model families, one package each; `vidformers.families` lists them."""

from ..families import FAMILIES, Family


def exported_modules(family: Family) -> dict[str, str]:
    """For each public class of a family, the module that defines it, relative to the family's package."""
    stem = family.config_class.removesuffix("Config")
    modules = {
        family.config_class: f".configuration_{family.model_type}",
        family.video_processor_class: f".video_processing_{family.model_type}",
    }
    for name in (f"{stem}PreTrainedModel", *family.model_classes):
        modules[name] = f".{family.model_modules.get(name, f'modeling_{family.model_type}')}"
    return modules


def public_modules() -> dict[str, str]:
    """For each public class of all families, the module that defines it, relative to `vidformers`."""
    return {
        name: f".models.{family.model_type}{module}"
        for family in FAMILIES.values()
        for name, module in exported_modules(family).items()
    }
