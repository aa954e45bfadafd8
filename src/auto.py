"""Registration of the families with the Auto classes of transformers. What else it takes there is in `compat`."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from types import ModuleType

from . import compat
from .compat import class_of
from .families import FAMILIES, PROBE
from .models.records import Family, Part


def register(names: bool = False) -> None:
    """Make the Auto classes of transformers give the classes of this package.

    Calling it again changes nothing.

    Args:
        names: also let classes that are imported from transformers by their names be those of this package, such as
            `from transformers import PeVideoModel`. They stay transformers' own otherwise.

    Raises:
        ImportError: if the installed torchvision cannot be imported, which keeps transformers from loading models.
    """
    earlier = compat.transformers_modules()
    with compat.broken_torchvision_explained():
        import_module("transformers.models.auto.modeling_auto")
        import_module("transformers.models.auto.video_processing_auto")
    for family in FAMILIES.values():
        for record in (family, *family.parts):
            _register_models(record, partial(class_of, family))
            _register_processors(family, record)
            compat.refuse_other_classes(class_of(family, record.config_class), record)
    _register_models(PROBE, partial(getattr, import_module(".models.attentive_probe", __package__)))
    compat.read_remote_configurations()
    compat.choose_processors_by_configuration()
    compat.choose_tokenizers_by_configuration()
    compat.give_parts_their_processors()
    compat.prefer_registered_processors()
    compat.show_video_classes(earlier)
    compat.add_removed_names(earlier)
    if names:
        compat.replace_names(earlier)


def unregister() -> None:
    """Undo `register(names=True)`: names of transformers give its own classes again. The Auto classes stay."""
    compat.give_names_back()


def _register_models(record: Family | Part, class_named: Callable[[str], type]) -> None:
    """Enter the configuration that a record names, and the models that are built from it."""
    config_class = class_named(record.config_class)
    _auto("configuration").AutoConfig.register(record.model_type, config_class, exist_ok=True)
    for auto_name, model_name in record.auto_models.items():
        getattr(_auto("modeling"), auto_name).register(config_class, class_named(model_name), exist_ok=True)


def _register_processors(family: Family, record: Family | Part) -> None:
    """Enter what prepares the input of a family or of a part of it."""
    config_class = class_of(family, record.config_class)
    # A class of ours with a name that other families' directories give would take those directories too.
    if record.input != "text" and family.video_processor_class not in family.shared_processors:
        processor_class = class_of(family, family.video_processor_class)
        _auto("video_processing").AutoVideoProcessor.register(config_class, processor_class, exist_ok=True)
    if record is not family and record.image_processor_class:
        classes = {"pil": class_of(family, record.image_processor_class)}
        images = _auto("image_processing").AutoImageProcessor
        images.register(config_class, image_processor_classes=classes, exist_ok=True)
    if record.tokenizer_class:
        tokenizer_class = class_of(family, record.tokenizer_class)
        _auto("tokenization").AutoTokenizer.register(config_class, tokenizer_class=tokenizer_class, exist_ok=True)
    if record.processor_class:
        processor_class = class_of(family, record.processor_class)
        _auto("processing").AutoProcessor.register(config_class, processor_class, exist_ok=True)


def _auto(kind: str) -> ModuleType:
    """The module of transformers that holds the Auto classes of a kind."""
    return import_module(f"transformers.models.auto.{kind}_auto")
