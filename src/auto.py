"""Registration of the families with the Auto classes of transformers, the only thing that importing us changes.

transformers hides `AutoVideoProcessor` and `VideoProcessorMixin` behind placeholders where torchvision is not
installed, although neither needs it. `register` puts the real ones in their place, so that our video processors,
which do without torchvision, are found by the usual imports.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from .families import FAMILIES, Family
from .models import exported_modules


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
    if not import_module("transformers.utils").is_torchvision_available():
        _show_video_classes(holders | _transformers_modules(), video)


def _register_family(family: Family, auto: ModuleType, auto_video_processor: type) -> None:
    """Enter one family into every Auto class that serves it."""
    modules = exported_modules(family)

    def load(name: str) -> type:
        return getattr(import_module(f".models.{family.model_type}{modules[name]}", __package__), name)

    config_class = load(family.config_class)
    import_module("transformers.models.auto.configuration_auto").AutoConfig.register(
        family.model_type, config_class, exist_ok=True
    )
    for auto_name, model_name in family.auto_models.items():
        getattr(auto, auto_name).register(config_class, load(model_name), exist_ok=True)
    auto_video_processor.register(config_class, load(family.video_processor_class), exist_ok=True)


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
