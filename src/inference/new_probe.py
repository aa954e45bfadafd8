"""A frozen encoder with a new head, of any family."""

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from math import gcd
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from torch import nn
from transformers import PreTrainedConfig
from transformers import initialization as init

from vidformers.models.attentive_probe import AttentiveProbeConfig, AttentiveProbeForVideoClassification
from vidformers.models.pretrained import VideoPreTrainedModel

from .directory import Directory


POOLER_HEADS = 16


def new_probe(
    opened: Directory, classes: Sequence[str], layers: int, dtype: torch.dtype, **fields: Any
) -> VideoPreTrainedModel:
    """A directory's encoder with a new head, in evaluation mode.

    It is the family's own class where that has an attentive probe, and else an
    [`AttentiveProbeForVideoClassification`].

    Args:
        opened: the directory.
        classes: names of the classes.
        layers: self-attention blocks of the head.
        dtype: type of the encoder's weights. Those of the head are float32.
        fields: others of the configuration, such as the numbers of classes by which actions are anticipated.

    Raises:
        ValueError: the model has no tokens of videos; or no class of the family anticipates actions.
    """
    if opened.input == "text":
        raise ValueError(f"{opened.path}: {opened.model_class.__name__} reads texts, and has no tokens of videos.")
    package = import_module("vidformers")
    name, anticipates = opened.record.auto_models.get("AutoModelForVideoClassification"), "num_verb_labels" in fields
    if anticipates:
        name = "VJEPA2ForActionAnticipation"
        if package.VJEPA2Config.model_type != opened.config.model_type:
            raise ValueError(f"{opened.path}: actions are anticipated by models of V-JEPA 2 alone.")
    own = getattr(package, name) if name else None
    labels = {"id2label": dict(enumerate(classes)), "label2id": {name: i for i, name in enumerate(classes)}}
    fields = {"num_pooler_layers": layers, **labels, **fields}
    if own not in (None, AttentiveProbeForVideoClassification) and own.has_probe:
        usual = getattr(package, opened.record.auto_models["AutoModel"])
        encoder = replace(opened, model_class=usual).load_model(dtype, features_only=not anticipates)
        config = changed(encoder.config, **fields)
        with init.no_init_weights():
            probe = own(config)
        setattr(probe, probe.base_model_prefix, encoder)
    elif "out_layers" in fields:
        raise ValueError(
            f"{opened.path}: inner blocks can be read of models of V-JEPA 2 alone: leave `out_layers` out."
        )
    else:
        encoder = opened.load_model(dtype, features_only=True).feature_tower
        config = changed(AttentiveProbeConfig(encoder_config=encoder.config), **fields)
        with init.no_init_weights():
            probe = AttentiveProbeForVideoClassification(config, encoder)
    for part in head_of(probe).values():
        part.apply(probe._init_weights)
    return probe.eval()


def changed(config: PreTrainedConfig, **fields: Any) -> PreTrainedConfig:
    """A copy of a configuration with other fields, and as many heads of the pooler as divide the width, at most 16.

    Raises:
        ValueError: it refuses a value.
    """
    heads = gcd(POOLER_HEADS, config.hidden_size)
    try:
        return type(config).from_dict({**config.to_dict(), **fields, "pooler_num_attention_heads": heads})
    except StrictDataclassClassValidationError as error:
        raise error.__cause__ from None


def head_of(probe: VideoPreTrainedModel) -> dict[str, nn.Module]:
    """The parts of a model that are not its encoder, by name."""
    return {name: part for name, part in probe.named_children() if name != probe.base_model_prefix}
