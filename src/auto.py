"""Registration of the families with the Auto classes of transformers, the only thing that importing us changes.

transformers hides `AutoVideoProcessor` and `VideoProcessorMixin` behind placeholders where torchvision is not
installed, although neither needs it. `register` puts the real ones in their place, so that our video processors,
which do without torchvision, are found by the usual imports.
"""

import functools
import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from .families import FAMILIES, Family
from .models import exported_modules


# What says where a directory of the Hub is, in calls of `from_pretrained`.
HUB_ARGUMENTS = "cache_dir force_download local_files_only proxies revision subfolder token".split()


def register() -> None:
    """Make the Auto classes of transformers give the classes of this package.

    Calling it again changes nothing. Classes of transformers that are imported by their names stay as they are.

    Raises:
        ImportError: if the installed torchvision cannot be imported, which keeps transformers from loading models.
    """
    holders = _transformers_modules()
    try:
        auto = import_module("transformers.models.auto.modeling_auto")
        video = import_module("transformers.models.auto.video_processing_auto")
    except Exception:
        _raise_if_torchvision_is_broken()
        raise
    for family in FAMILIES.values():
        _register_family(family, auto, video.AutoVideoProcessor)
    _adopt_video_processors(video.AutoVideoProcessor)
    if not import_module("transformers.utils").is_torchvision_available():
        _show_video_classes(holders | _transformers_modules(), video)


def _register_family(family: Family, auto: ModuleType, auto_video_processor: type) -> None:
    """Enter one family into every Auto class that serves it."""
    modules = exported_modules(family)

    def load(name: str) -> type:
        return getattr(import_module(f".models.{family.model_type}{modules[name]}", __package__), name)

    auto_config = import_module("transformers.models.auto.configuration_auto").AutoConfig
    for record in (family, *family.parts):
        config_class = load(record.config_class)
        auto_config.register(record.model_type, config_class, exist_ok=True)
        for auto_name, model_name in record.auto_models.items():
            getattr(auto, auto_name).register(config_class, load(model_name), exist_ok=True)
        if record is family or record.input == "videos":
            auto_video_processor.register(config_class, load(family.video_processor_class), exist_ok=True)
        if record.tokenizer_class:
            tokenizers = import_module("transformers.models.auto.tokenization_auto").AutoTokenizer
            tokenizers.register(config_class, tokenizer_class=load(record.tokenizer_class), exist_ok=True)
        if record.processor_class:
            processing = import_module("transformers.models.auto.processing_auto")
            processing.AutoProcessor.register(config_class, load(record.processor_class), exist_ok=True)
            # AutoProcessor looks a directory's class name up here first, and would take transformers' class for ours.
            processing.PROCESSOR_MAPPING_NAMES.pop(record.model_type, None)
    for part in family.parts:
        if part.image_processor_class:
            images = import_module("transformers.models.auto.image_processing_auto").AutoImageProcessor
            classes = {"pil": load(part.image_processor_class)}
            images.register(load(part.config_class), image_processor_classes=classes, exist_ok=True)


def _adopt_video_processors(auto_video_processor: type) -> None:
    """Let a family's directories that name another family's video processor load ours.

    A registration under that name would take it from the family that it belongs to; so the configuration is asked,
    and only where such a name is found.
    """
    if "_transformers_from_pretrained" in vars(auto_video_processor):
        return
    auto_video_processor._transformers_from_pretrained = auto_video_processor.from_pretrained

    @functools.wraps(auto_video_processor.from_pretrained.__func__)
    def from_pretrained(cls, pretrained_model_name_or_path, *inputs, **kwargs):
        ours = _adopted_class(pretrained_model_name_or_path, kwargs)
        if ours is None:
            return cls._transformers_from_pretrained(pretrained_model_name_or_path, *inputs, **kwargs)
        for name in ("config", "trust_remote_code", "backend"):
            kwargs.pop(name, None)
        return ours.from_pretrained(pretrained_model_name_or_path, *inputs, **kwargs)

    auto_video_processor.from_pretrained = classmethod(from_pretrained)


def _adopted_class(name: Any, kwargs: dict[str, Any]) -> type | None:
    """Our video processor for a directory of ours that names another family's."""
    foreign = {found for family in FAMILIES.values() for found in family.foreign_video_processors}
    mixin = import_module("transformers.video_processing_utils").VideoProcessorMixin
    where = {key: kwargs[key] for key in HUB_ARGUMENTS if key in kwargs}
    try:
        settings, _ = mixin.get_video_processor_dict(name, **where)
        if settings.get("video_processor_type") not in foreign:
            return None
        config = kwargs.get("config")
        if config is None:
            config = import_module("transformers.models.auto.configuration_auto").AutoConfig.from_pretrained(
                name, **where
            )
    except (OSError, ValueError):
        return None  # AutoVideoProcessor says what is wrong.
    for family in FAMILIES.values():
        adopts = settings["video_processor_type"] in family.foreign_video_processors
        if adopts and config.model_type in family.model_types:
            package = import_module(f".models.{family.model_type}", __package__)
            return getattr(package, family.video_processor_class)
    return None


def _transformers_modules() -> set[ModuleType]:
    """Every object that code loaded so far knows as the module `transformers`.

    Importing `transformers.processing_utils` runs the package a second time and replaces it in `sys.modules`, so that
    an `import transformers` from before holds another object than one from after.
    """
    known = {vars(module).get("transformers") for module in [*sys.modules.values()] if isinstance(module, ModuleType)}
    known.add(sys.modules.get("transformers"))
    return {module for module in known if isinstance(module, ModuleType) and module.__name__ == "transformers"}


def _show_video_classes(holders: set[ModuleType], video: ModuleType) -> None:
    """Replace the placeholders for a missing torchvision on the modules that users import from."""
    mixin = import_module("transformers.video_processing_utils").VideoProcessorMixin
    for holder in (*holders, sys.modules["transformers.models.auto"]):
        _forward_placeholder(vars(holder).get("AutoVideoProcessor"), video.AutoVideoProcessor)
        holder.AutoVideoProcessor = video.AutoVideoProcessor
        holder.VIDEO_PROCESSOR_MAPPING = video.VIDEO_PROCESSOR_MAPPING
    for holder in holders:
        holder.VideoProcessorMixin = mixin


class _Forward(type):
    """Metaclass of a placeholder that someone imported before us: its attributes are those of the real class."""

    _real: type

    def __getattr__(cls, name: str) -> Any:
        return getattr(type.__getattribute__(cls, "_real"), name)


def _forward_placeholder(placeholder: Any, real: type) -> None:
    """Let a placeholder that `from transformers import …` has already handed out behave as the real class."""
    if getattr(type(placeholder), "is_dummy", False):
        placeholder._real = real
        placeholder.__class__ = _Forward


def _raise_if_torchvision_is_broken() -> None:
    """Explain a failed import of transformers that comes from an installed but unusable torchvision."""
    if find_spec("torchvision") is None:
        return
    try:
        import_module("torchvision.transforms.v2.functional")
    except Exception as error:
        torch_version = import_module("torch").__version__
        raise ImportError(
            f"torchvision is installed but cannot be imported ({type(error).__name__}: {error}). transformers imports "
            "it wherever it is installed, so that no model can be loaded. vidformers does not need it: remove it "
            "(`pip uninstall torchvision`), or install the release that was built for your torch "
            f"{torch_version}, then start Python again."
        ) from error
