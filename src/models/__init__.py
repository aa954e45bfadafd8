"""The model families, one package each; `vidformers.families` lists them."""

from ..families import FAMILIES, Family


def exported_modules(family: Family) -> dict[str, str]:
    """For each public name of a family, the module that defines it, relative to the family's package."""
    stem = family.config_class.removesuffix("Config")
    records = (family, *family.parts)
    names = {
        "configuration": family.config_classes,
        "video_processing": (family.video_processor_class,),
        "image_processing": [*family.image_processor_classes, *(part.image_processor_class for part in family.parts)],
        "tokenization": [record.tokenizer_class for record in records],
        "processing": [record.processor_class for record in records],
        "modeling": (f"{stem}PreTrainedModel", *family.model_classes),
    }
    modules = {name: f"{module}_{family.model_type}" for module, classes in names.items() for name in classes if name}
    return {name: f".{module}" for name, module in {**modules, **family.model_modules, **family.functions}.items()}


def public_modules() -> dict[str, str]:
    """For each public name of all families, the module that defines it, relative to `vidformers`."""
    return {
        name: f".models.{family.model_type}{module}"
        for family in FAMILIES.values()
        for name, module in exported_modules(family).items()
    }
