"""Directories OpenGVLab/VideoMAEv2-*: what `from_pretrained` loads of them in the place of their own code."""

import copy
import os

import torch
from transformers import PretrainedConfig, PreTrainedModel

from vidformers.conversion.configure import bounds
from vidformers.conversion.found import find
from vidformers.conversion.rules import convert
from vidformers.conversion.sources import open_source

from .checkpoint import FORMS


def read_hub_weights(
    file: str | os.PathLike, model_class: type[PreTrainedModel], config: PretrainedConfig
) -> tuple[PretrainedConfig, dict[str, torch.Tensor]]:
    """Our tensors of a directory's weights.

    Args:
        file: `model.safetensors` of the directory.
        model_class: the class to load.
        config: what the directory's settings and the user say.

    Returns:
        The configuration with what the tensors tell, such as whether the mean of the tokens is normalized or the
        tokens are, which settings get wrong; and our tensors by name, in the type of the file.

    Raises:
        ValueError: a class that needs more than an encoder.
    """
    forms = {form.architecture: form for form in FORMS if form.theirs == "model."}
    architecture = next((base.__name__ for base in model_class.__mro__ if base.__name__ in forms), None)
    if architecture is None:
        able = ", ".join(forms)
        raise ValueError(f"{file}: holds an encoder, of which {model_class.__name__} can't be made; {able} can.")
    form, config = forms[architecture], copy.deepcopy(config)
    with open_source(file) as source:
        found = find(form, {"checkpoint": source}, {})
        for name, bound in bounds(form.config_from(found.shapes)).items():
            if not bound.fits(getattr(config, name)):
                setattr(config, name, bound.value)
        return config, dict(convert(form.rules(config), found.read))
