"""What we change in transformers beyond entries in its Auto classes: one function a change.

Each docstring says which part of transformers the change is about, and from which version of transformers on it will
not be needed. Line numbers would age: the places are named by file and function, as of transformers 5.23.
"""

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

from .families import FAMILIES, PROBE, public_modules
from .models.hub import hub_arguments
from .models.records import Family, Part


AUTO_ARGUMENTS = "backend config trust_remote_code use_fast".split()
"""What an Auto class' `from_pretrained` takes and that of a processor or tokenizer doesn't."""
PROCESSORS_BY_INPUT = {
    "text": ("tokenization", "AutoTokenizer"),
    "images": ("image_processing", "AutoImageProcessor"),
    "videos": ("video_processing", "AutoVideoProcessor"),
}
"""The Auto class that prepares the input of a part, with the kind of its module."""
REMOVED_NAMES = ("VideoMAEFeatureExtractor",)
"""Names of our families that transformers had before version 5."""


# ------------------------------------------------------------------------------------------------------- the changes


def show_video_classes(earlier: set[ModuleType]) -> None:
    """Show `AutoVideoProcessor` and `VideoProcessorMixin` where torchvision is not installed.

    transformers has a placeholder for the first, whose every use is an error, and lacks the second, although neither
    class needs torchvision. The real ones come back, and with them `VIDEO_PROCESSOR_MAPPING`. A placeholder that
    somebody has imported before behaves as the real class from then on. Where torchvision is installed, nothing
    changes.

    Mends: `requires(backends=…)` in `models/auto/video_processing_auto.py`, the placeholders of
    `utils/import_utils.py`, and the list of names in `__init__.py`. Upstream:
    https://github.com/huggingface/transformers/issues/43986 is about the same missing package. Needed until: no
    version yet.

    Args:
        earlier: what [`~compat.transformers_modules`] gave before modules of transformers were imported.
    """
    video = import_module("transformers.models.auto.video_processing_auto")
    if import_module("transformers.utils").is_torchvision_available():
        return
    holders = earlier | transformers_modules()
    mixin = import_module("transformers.video_processing_utils").VideoProcessorMixin
    for module in [*holders, *_loaded_modules()]:
        _forward_placeholder(vars(module).get("AutoVideoProcessor"), video.AutoVideoProcessor)
    for holder in (*holders, sys.modules["transformers.models.auto"]):
        holder.AutoVideoProcessor = video.AutoVideoProcessor
        holder.VIDEO_PROCESSOR_MAPPING = video.VIDEO_PROCESSOR_MAPPING
    for holder in holders:
        holder.VideoProcessorMixin = mixin


def choose_processors_by_configuration() -> None:
    """Let a directory's configuration say whose processor it has, where several families share the name of a class.

    `AutoVideoProcessor` and `AutoImageProcessor` take the class whose name a directory's processor settings give.
    Directories of VideoMAE name `VideoMAEImageProcessor`, and so do those of TimeSformer and X-CLIP; directories of
    VideoPrism name LLaVA's. So that ours is found in the first and theirs in the second, `from_pretrained` of the two
    asks the configuration's `model_type` first, only where such a name or none is found. All else, remote code
    included, goes to transformers' own method.

    Mends: `from_pretrained` in `models/auto/video_processing_auto.py` and `models/auto/image_processing_auto.py`,
    which look at the configuration last. Upstream: no issue known. Needed until: no version yet.
    """
    video = import_module("transformers.models.auto.video_processing_auto")
    image = import_module("transformers.models.auto.image_processing_auto")
    for auto_class, kind in ((video.AutoVideoProcessor, VIDEOS), (image.AutoImageProcessor, IMAGES)):
        _ask_configuration_first(auto_class, kind)


def read_remote_configurations() -> None:
    """Let `AutoConfig`, and with it all Auto classes, read directories of remote code for which there is a class here.

    Directories of VideoMAE V2 have a `model_type` of their own, one for each size, and code for it. `AutoConfig` looks
    model types up one by one; here it also finds those that begin as a family says. Nothing of such a directory's code
    is run, `trust_remote_code` or not.

    Mends: `CONFIG_MAPPING` in `models/auto/configuration_auto.py`, which knows no types by their beginnings. Upstream:
    no issue known. Needed until: the directories name a type of transformers.
    """
    mapping = import_module("transformers.models.auto.configuration_auto").CONFIG_MAPPING
    if not isinstance(mapping._extra_content, _TypesByBeginning):
        mapping._extra_content = _TypesByBeginning(mapping._extra_content)


class _TypesByBeginning(dict):
    """Configuration classes by model type, and by types of remote code that are a family's."""

    def __contains__(self, model_type: object) -> bool:
        return super().__contains__(model_type) or own_model_type(model_type) not in (None, model_type)

    def __missing__(self, model_type: object) -> type:
        own = own_model_type(model_type)
        if own in (None, model_type):
            raise KeyError(model_type)
        return self[own]


def own_model_type(model_type: Any) -> str | None:
    """The family's own name of a `config.model_type`, if there is such a family."""
    names = (family.own_model_type(model_type) for family in FAMILIES.values() if isinstance(model_type, str))
    return next((name for name in names if name is not None), None)


def choose_tokenizers_by_configuration() -> None:
    """Let a directory's configuration say whose tokenizer it has, whatever class its settings name.

    `AutoTokenizer` takes the class that `tokenizer_config.json` names. Tools that train or convert tokenizers write a
    generic name there (`PreTrainedTokenizerFast`, `T5Tokenizer`), and text would not be made canonical as the model
    wants it. Where the configuration is that of a family with a tokenizer of its own, that one is loaded; where it
    can't read the files, a warning says so and the named class is. All else, remote code included, goes to
    transformers' own method.

    Mends: `from_pretrained` in `models/auto/tokenization_auto.py`, which looks at the configuration last. Upstream: no
    issue known. Needed until: no version yet.
    """
    auto_class = import_module("transformers.models.auto.tokenization_auto").AutoTokenizer

    def from_pretrained(cls, pretrained_model_name_or_path, *inputs, **kwargs):
        ours = adopted_tokenizer(pretrained_model_name_or_path, kwargs)
        if ours is not None:
            plain = {name: value for name, value in kwargs.items() if name not in AUTO_ARGUMENTS}
            try:
                return ours.from_pretrained(pretrained_model_name_or_path, *inputs, **plain)
            except ValueError as error:
                _warn(f"{ours.__name__} can't read this directory, so that texts are not prepared by it: {error}")
        return cls._transformers_from_pretrained(pretrained_model_name_or_path, *inputs, **kwargs)

    _ask_first(auto_class, from_pretrained)


def give_parts_their_processors() -> None:
    """Let `AutoProcessor` give what prepares the input of a part, such as a text tower.

    Tokenizers and video processors that were saved with a model of videos and texts name its processor, and keep that
    name when they are saved with a tower. `AutoProcessor` then looks for what a tower doesn't have. For a directory of
    one of our parts it gives the tokenizer, video processor or image processor instead.

    Mends: `from_pretrained` in `models/auto/processing_auto.py`. Upstream: no issue known. Needed until: no version
    yet.
    """
    auto_class = import_module("transformers.models.auto.processing_auto").AutoProcessor

    def from_pretrained(cls, pretrained_model_name_or_path, *inputs, **kwargs):
        module = _processors_of_part(pretrained_model_name_or_path, kwargs)
        if module is None:
            return cls._transformers_from_pretrained(pretrained_model_name_or_path, *inputs, **kwargs)
        return module.from_pretrained(pretrained_model_name_or_path, *inputs, **kwargs)

    _ask_first(auto_class, from_pretrained)


def refuse_other_classes(config_class: type, record: Family | Part) -> None:
    """Let an Auto class for which a family has no model say so, and which there are.

    transformers finds a model class by the name of a configuration class. Ours have the names of theirs, so that an
    Auto class with an entry for theirs alone would build their model from our configuration. It gets an entry for ours
    whose use is an error.

    Mends: `_LazyAutoMapping` in `models/auto/auto_factory.py`. Upstream: no issue known. Needed until: no version yet.

    Args:
        config_class: of the family or part, registered before with the Auto classes that it has.
        record: the family or part.
    """
    factory = import_module("transformers.models.auto.auto_factory")
    for auto_class in vars(import_module("transformers.models.auto.modeling_auto")).values():
        if not isinstance(auto_class, type) or not issubclass(auto_class, factory._BaseAutoModelClass):
            continue
        mapping = auto_class._model_mapping
        if mapping is not None and config_class not in mapping._extra_content and config_class in mapping:
            auto_class.register(config_class, _refusing(auto_class.__name__, config_class, record), exist_ok=True)


def prefer_registered_processors() -> None:
    """Let `AutoProcessor` find our processors, whose names are also those of classes of transformers.

    `AutoProcessor` looks the name in a directory up among the classes that transformers ships, and only then among
    those that are registered. So the entries of our families leave transformers' list.

    Mends: `processor_class_from_name` in `models/auto/processing_auto.py`. Upstream:
    https://github.com/huggingface/transformers/pull/41865 mended the same for video and image processors. Needed
    until: no version yet.
    """
    processing = import_module("transformers.models.auto.processing_auto")
    for family in FAMILIES.values():
        for record in (family, *family.parts):
            if record.processor_class:
                processing.PROCESSOR_MAPPING_NAMES.pop(record.model_type, None)


def add_removed_names(earlier: set[ModuleType]) -> None:
    """Add names to `transformers` that it had before version 5, and that published model cards still use.

    Mends: `__init__.py` of transformers, which has removed all feature extractors of images. Upstream: removed on
    purpose. Needed until: the cards are rewritten.

    Args:
        earlier: as for [`~compat.show_video_classes`].
    """
    for module in earlier | transformers_modules():
        for name in REMOVED_NAMES:
            if not hasattr(module, name):
                setattr(module, name, getattr(import_module(__package__), name))


def replace_names(earlier: set[ModuleType]) -> None:
    """Let `from transformers import PeVideoModel`, and the other names of our families, give classes of this package.

    For code that cannot be changed. It is off unless [`register`] is called with `names=True` or `VIDFORMERS_AUTO` is
    "names", and [`unregister`] undoes it. What was imported before stays what it was.

    Mends: nothing; it is a wish. Upstream: transformers keeps its own classes. Needed until: the code is changed.

    Args:
        earlier: as for [`~compat.show_video_classes`].
    """
    package = import_module(__package__)
    for module in earlier | transformers_modules():
        theirs = _names_replaced.setdefault(module, {})
        for name in set(public_modules()) & set(dir(module)) - set(theirs):
            theirs[name] = vars(module).get(name)
            setattr(module, name, getattr(package, name))


def give_names_back() -> None:
    """Undo [`~compat.replace_names`]."""
    while _names_replaced:
        module, theirs = _names_replaced.popitem()
        for name, value in theirs.items():
            if value is None:
                delattr(module, name)  # The module loads it when it is asked for.
            else:
                setattr(module, name, value)


_names_replaced: dict[ModuleType, dict[str, Any]] = {}
"""For each object that is the module `transformers`, what it held under the replaced names; `None` for nothing."""


# --------------------------------------------------------------------------------- missing and broken torchvision


def transformers_modules() -> set[ModuleType]:
    """Every object that code loaded so far knows as the module `transformers`.

    Importing `transformers.processing_utils` runs the package a second time and replaces it in `sys.modules`, so that
    an `import transformers` from before holds another object than one from after.
    """
    known = {vars(module).get("transformers") for module in _loaded_modules()}
    known.add(sys.modules.get("transformers"))
    return {module for module in known if isinstance(module, ModuleType) and module.__name__ == "transformers"}


def _loaded_modules() -> list[ModuleType]:
    return [module for module in [*sys.modules.values()] if isinstance(module, ModuleType)]


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


@contextmanager
def broken_torchvision_explained() -> Iterator[None]:
    """Say it where an import of transformers fails because the installed torchvision is unusable.

    Raises:
        ImportError: what is wrong with torchvision, and what to do.
    """
    try:
        yield
    except Exception:
        if find_spec("torchvision") is not None:
            _raise_if_torchvision_is_broken()
        raise


def _raise_if_torchvision_is_broken() -> None:
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


# ------------------------------------------------------------------------------------ processors with a shared name


class Kind(NamedTuple):
    """Processors of videos or of images, and how transformers stores them.

    Attributes:
        field: of a `Family`, with the name of our class.
        reader: method of transformers that reads a directory's settings.
        keys: of the settings, those that name a class, the one that counts most first.
    """

    field: str
    reader: str
    keys: tuple[str, ...]


IMAGES = Kind("image_processor_class", "get_image_processor_dict", ("image_processor_type", "feature_extractor_type"))
VIDEOS = Kind("video_processor_class", "get_video_processor_dict", ("video_processor_type", *IMAGES.keys))


def _ask_configuration_first(auto_class: type, kind: Kind) -> None:
    """Put the question to the configuration before an Auto class' `from_pretrained`, once."""

    def from_pretrained(cls, pretrained_model_name_or_path, *inputs, **kwargs):
        ours = adopted_class(pretrained_model_name_or_path, kwargs, kind)
        if ours is None:
            return cls._transformers_from_pretrained(pretrained_model_name_or_path, *inputs, **kwargs)
        for name in AUTO_ARGUMENTS:
            kwargs.pop(name, None)
        return ours.from_pretrained(pretrained_model_name_or_path, *inputs, **kwargs)

    _ask_first(auto_class, from_pretrained)


def _ask_first(auto_class: type, from_pretrained: Callable[..., Any]) -> None:
    """Put a function in the place of an Auto class' `from_pretrained`, which it finds under another name; once."""
    if "_transformers_from_pretrained" in vars(auto_class):
        return
    auto_class._transformers_from_pretrained = auto_class.from_pretrained
    auto_class.from_pretrained = classmethod(functools.wraps(auto_class.from_pretrained.__func__)(from_pretrained))


def adopted_class(path: Any, arguments: dict[str, Any], kind: Kind = VIDEOS) -> type | None:
    """Our processor for a directory of ours whose settings name a class of several families, or none.

    Args:
        path: the directory, or a repository of the Hub.
        arguments: those of `from_pretrained`.
        kind: which processor.

    Returns:
        The class; `None` for all directories that transformers' own method is to load. Without a configuration a name
        is that of the family which has it as its own.
    """
    families = [family for family in FAMILIES.values() if getattr(family, kind.field)]
    mixin = import_module("transformers.video_processing_utils").VideoProcessorMixin
    try:
        settings, _ = getattr(mixin, kind.reader)(path, **hub_arguments(arguments))
        found = next((settings[key] for key in kind.keys if settings.get(key)), None)
        families = [family for family in families if found is None or found in family.shared_processors]
        if not families or "auto_map" in settings:
            return None
    except (OSError, ValueError):
        return None  # The Auto class says what is wrong.
    model_type = _model_type(path, arguments)
    for family in families:
        names = (family.video_processor_class, *family.image_processor_classes)
        if found in names if model_type is None else family.own_model_type(model_type) is not None:
            return class_of(family, getattr(family, kind.field))
    return None


def _model_type(path: Any, arguments: dict[str, Any]) -> str | None:
    """`model_type` of a directory's configuration, or of the one among the arguments, if there is any.

    A probe has what its encoder has.
    """
    config = arguments.get("config")
    if getattr(config, "model_type", None) is None:
        config_class = import_module("transformers.configuration_utils").PretrainedConfig
        try:
            settings, _ = config_class.get_config_dict(path, **hub_arguments(arguments))
        except (OSError, ValueError):
            return None  # The Auto class says what is wrong.
    else:
        settings = config.to_dict()
    if settings.get("model_type") == PROBE.model_type:
        settings = settings["encoder_config"]
    return settings.get("model_type")


def class_of(family: Family, name: str) -> type:
    """A class of a family, by its name."""
    return getattr(import_module(f".models.{family.model_type}", __package__), name)


def _record(model_type: str | None) -> tuple[Family, Family | Part] | None:
    """The family of a model type of ours, and what is entered under it."""
    for family in FAMILIES.values():
        if model_type in family.model_types:
            return family, family.record(model_type)
    return None


# ------------------------------------------------------------------------------- tokenizers, parts, missing models


def adopted_tokenizer(path: Any, arguments: dict[str, Any]) -> type | None:
    """Our tokenizer for a directory whose configuration is ours and whose settings name another class, or none.

    Args:
        path: the directory, or a repository of the Hub.
        arguments: those of `from_pretrained`.

    Returns:
        The class; `None` for all directories that transformers' own method is to load.
    """
    tokenization = import_module("transformers.models.auto.tokenization_auto")
    entry = None if arguments.get("tokenizer_type") else _record(_model_type(path, arguments))
    if entry is None or not entry[1].tokenizer_class:
        return None
    try:
        settings = tokenization.get_tokenizer_config(path, **hub_arguments(arguments))
    except (OSError, ValueError):
        return None
    named = settings.get("tokenizer_class")
    if "auto_map" in settings or named in (None, entry[1].tokenizer_class):
        return None
    return class_of(entry[0], entry[1].tokenizer_class)


def _processors_of_part(path: Any, arguments: dict[str, Any]) -> type | None:
    """The Auto class of what prepares the input of one of our parts, `None` for all other directories."""
    entry = _record(_model_type(path, arguments))
    if entry is None or entry[0] is entry[1] or entry[1].processor_class:
        return None
    kind, name = PROCESSORS_BY_INPUT[entry[1].input]
    return getattr(import_module(f"transformers.models.auto.{kind}_auto"), name)


def _refusing(auto_name: str, config_class: type, record: Family | Part) -> type:
    """What an Auto class finds for a configuration of ours that it has no model for."""
    models = [f"{auto} ({model})" for auto, model in record.auto_models.items()]

    def refuse(cls, *args: Any, **kwargs: Any) -> NoReturn:
        raise ValueError(
            f"vidformers has no {auto_name} for model type {record.model_type!r}; it has {', '.join(models)}. Classes "
            "of transformers are there under their own names."
        )

    methods = {name: classmethod(refuse) for name in ("from_pretrained", "_from_config")}
    methods["config_class"] = config_class
    return type(f"No{auto_name.removeprefix('Auto')}", (), {"__module__": __name__, **methods})


def _warn(message: str) -> None:
    import_module("transformers.utils.logging").get_logger(__name__).warning(message)
