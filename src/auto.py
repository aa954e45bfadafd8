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
from typing import Any, NamedTuple

from .families import FAMILIES
from .models.records import Family


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
    _adopt_processors(video.AutoVideoProcessor, _VIDEOS)
    _adopt_processors(import_module("transformers.models.auto.image_processing_auto").AutoImageProcessor, _IMAGES)
    if not import_module("transformers.utils").is_torchvision_available():
        _show_video_classes(holders | _transformers_modules(), video)


def _register_family(family: Family, auto: ModuleType, auto_video_processor: type) -> None:
    """Enter one family into every Auto class that serves it."""
    modules = family.modules

    def load(name: str) -> type:
        return getattr(import_module(f".models.{family.model_type}{modules[name]}", __package__), name)

    auto_config = import_module("transformers.models.auto.configuration_auto").AutoConfig
    for record in (family, *family.parts):
        config_class = load(record.config_class)
        auto_config.register(record.model_type, config_class, exist_ok=True)
        for auto_name, model_name in record.auto_models.items():
            getattr(auto, auto_name).register(config_class, load(model_name), exist_ok=True)
        is_shared = family.video_processor_class in family.shared_processors
        if not is_shared and (record is family or record.input == "videos"):
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


class _Kind(NamedTuple):
    """Of processors: the field of a `Family` that names ours, where a directory's settings are read, and the keys
    that name a class in them, the one that counts most first."""

    field: str
    reader: str
    keys: tuple[str, ...]


_IMAGES = _Kind(
    "image_processor_class", "get_image_processor_dict", ("image_processor_type", "feature_extractor_type")
)
_VIDEOS = _Kind("video_processor_class", "get_video_processor_dict", ("video_processor_type", *_IMAGES.keys))


def _adopt_processors(auto_class: type, kind: _Kind) -> None:
    """Let a family's directories load our class where they name one that other families' directories name too.

    A registration under that name would take it from those; so the configuration is asked, and only where such a
    name, or none, is found.
    """
    if "_transformers_from_pretrained" in vars(auto_class):
        return
    auto_class._transformers_from_pretrained = auto_class.from_pretrained

    @functools.wraps(auto_class.from_pretrained.__func__)
    def from_pretrained(cls, pretrained_model_name_or_path, *inputs, **kwargs):
        ours = _adopted_class(pretrained_model_name_or_path, kwargs, kind)
        if ours is None:
            return cls._transformers_from_pretrained(pretrained_model_name_or_path, *inputs, **kwargs)
        for name in ("config", "trust_remote_code", "backend", "use_fast"):
            kwargs.pop(name, None)
        return ours.from_pretrained(pretrained_model_name_or_path, *inputs, **kwargs)

    auto_class.from_pretrained = classmethod(from_pretrained)


def _adopted_class(name: Any, kwargs: dict[str, Any], kind: _Kind = _VIDEOS) -> type | None:
    """Our processor for a directory of ours that names a class of several families, or none."""
    families = [family for family in FAMILIES.values() if getattr(family, kind.field)]
    mixin = import_module("transformers.video_processing_utils").VideoProcessorMixin
    where = {key: kwargs[key] for key in HUB_ARGUMENTS if key in kwargs}
    try:
        settings, _ = getattr(mixin, kind.reader)(name, **where)
        found = next((settings[key] for key in kind.keys if settings.get(key)), None)
        families = [family for family in families if found is None or found in family.shared_processors]
        if not families or "auto_map" in settings:
            return None
        model_type = getattr(kwargs.get("config"), "model_type", None) or _model_type(name, where)
    except (OSError, ValueError):
        return None  # The Auto class says what is wrong.
    for family in families:
        if model_type in family.model_types:
            return getattr(import_module(f".models.{family.model_type}", __package__), getattr(family, kind.field))
    return None


def _model_type(name: Any, where: dict[str, Any]) -> str | None:
    """`model_type` of a directory's configuration."""
    config_class = import_module("transformers.configuration_utils").PretrainedConfig
    settings, _ = config_class.get_config_dict(name, **where)
    return settings.get("model_type")


def _transformers_modules() -> set[ModuleType]:
    """Every object that code loaded so far knows as the module `transformers`.

    Importing `transformers.processing_utils` runs the package a second time and replaces it in `sys.modules`, so that
    an `import transformers` from before holds another object than one from after.
    """
    known = {vars(module).get("transformers") for module in _loaded_modules()}
    known.add(sys.modules.get("transformers"))
    return {module for module in known if isinstance(module, ModuleType) and module.__name__ == "transformers"}


def _loaded_modules() -> list[ModuleType]:
    return [module for module in [*sys.modules.values()] if isinstance(module, ModuleType)]


def _show_video_classes(holders: set[ModuleType], video: ModuleType) -> None:
    """Replace the placeholders for a missing torchvision on the modules that users import from."""
    mixin = import_module("transformers.video_processing_utils").VideoProcessorMixin
    for module in [*holders, *_loaded_modules()]:
        _forward_placeholder(vars(module).get("AutoVideoProcessor"), video.AutoVideoProcessor)
    for holder in (*holders, sys.modules["transformers.models.auto"]):
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
