"""What `from_pretrained` of every family refuses: directories of other models, which would load as random weights."""

import os
from collections.abc import Collection, Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from .hub import hub_arguments


MOST_NAMED = 5
"""How many missing tensors a message names."""


def check_model_type(
    model_class: type[PreTrainedModel], path: str | os.PathLike, config: Any, arguments: Mapping[str, Any]
) -> None:
    """Raise if a directory's configuration is another model's.

    Configurations that hold one of the right type as a part are as good, so are the `other_model_types` of a
    configuration class, and those that are given as an object count as they are. What can't be read,
    `from_pretrained` says itself.

    Args:
        model_class: the class to load.
        path: the directory, or a repository of the Hub.
        config: the argument `config` of `from_pretrained`.
        arguments: its others.

    Raises:
        ValueError: both model types differ.
    """
    if path is None or isinstance(config, PreTrainedConfig):
        return
    config_class = model_class.config_class
    try:
        settings, _ = config_class.get_config_dict(config or path, **hub_arguments(arguments))
    except (OSError, ValueError):
        return
    parts = [part for part in settings.values() if isinstance(part, Mapping)]
    part = settings.get(config_class.base_config_key, settings) if config_class.base_config_key else settings
    readable = {config_class.model_type, *getattr(config_class, "other_model_types", ())}
    if any(each.get("model_type") in readable for each in (part, *parts)) or not part.get("model_type"):
        return
    raise ValueError(
        f"{path}: holds a model of type {part['model_type']!r}; {model_class.__name__} loads those of type "
        f"{config_class.model_type!r}. An Auto class such as `AutoModel` finds the class of a directory."
    )


def check_weights(model: PreTrainedModel, path: str | os.PathLike | None, missing: Collection[str]) -> None:
    """Raise if a directory lacks the weights of a model for the most part: of its base model, for heads may be new.

    Args:
        model: what was loaded.
        path: the directory, or a repository of the Hub.
        missing: names of the model's tensors that it lacks.

    Raises:
        ValueError: more than half of the base model's values are missing.
    """
    prefix = model.base_model_prefix
    start = f"{prefix}." if isinstance(getattr(model, prefix, None), nn.Module) else ""
    sizes = {name: tensor.numel() for name, tensor in model.state_dict().items() if name.startswith(start)}
    lacking = sorted(set(missing) & sizes.keys())
    if 2 * sum(sizes[name] for name in lacking) > sum(sizes.values()):
        more = f" and {len(lacking) - MOST_NAMED} more" if len(lacking) > MOST_NAMED else ""
        raise ValueError(
            f"{path or 'The state dict'}: lacks the weights of {type(model).__name__} for the most part, "
            f"{len(lacking)} of {len(sizes)} tensors: {', '.join(lacking[:MOST_NAMED])}{more}. It holds another "
            "model, or its tensors under other names; files of an original implementation load by `from_original`."
        )
