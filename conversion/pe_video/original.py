"""PE-AV's video and text part of facebookresearch/perception_models (3e352cca) beside PE Video.

The checkout needs timm and einops to be installed. Its package imports xformers, torchcodec and torchvision too, of
which this part uses nothing; where they are missing, empty modules stand in for them.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import nn
from transformers import AutoModel

from vidformers.conversion.found import Found, FoundPart
from vidformers.conversion.originals import filled, importable, recorded, two_texts
from vidformers.conversion.pe_core.original import build_tower, frames_of
from vidformers.conversion.pe_video.checkpoint import FRAME_TOWER, VISUAL


FRAMES = 3
SAME_NAMES = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("max_position_embeddings", "rms_norm_eps", "attention_bias"),
)
"""Fields of our configuration that the original's has under the same names."""
UNUSED = {
    "xformers.ops": ("AttentionBias", "fmha"),
    "torchcodec.decoders": ("AudioDecoder", "VideoDecoder"),
    "torchvision.transforms": (),
}
"""Modules that the original imports, and the names that it imports from them."""


def example_calls(config: Any, architecture: str) -> dict[str, dict[str, Any]]:
    """Small calls that go through every part of a model, at another size than the configured one.

    One call has frames that only fill the batch.
    """
    video_config = getattr(config, "video_config", config)
    frames = frames_of(video_config.vision_config)
    call = {"pixel_values_videos": frames.unflatten(0, (2, FRAMES))}
    if architecture == "PeVideoModel":
        call |= two_texts(config.text_config.vocab_size)
    mask = torch.tensor([[True] * FRAMES, [False, True, False]])
    return {"video": call, "padded": {**call, "padding_mask_videos": mask}}


@torch.no_grad()
def original_stages(
    repository: Path, config: Any, found: Found, calls: Mapping[str, Mapping[str, Any]]
) -> dict[str, torch.Tensor]:
    """What the original model gives for the calls of `example_calls`, without what padding leaves."""
    stages: dict[str, torch.Tensor] = {}
    part, has_texts = found[""], hasattr(config, "text_config")
    with _stand_ins(), importable(repository, ("core",)):
        original = import_module("core.audio_visual_encoder.pe")
        encoder = _encoder(original, getattr(config, "video_config", config), part)
        for name, call in calls.items():
            prefix = f"{name}.video_outputs." if has_texts else f"{name}."
            pooled, of_encoder = _run_encoder(encoder, prefix, call)
            stages |= of_encoder
            if has_texts:
                embeds = _head(original, part.under("visual_head."))(pooled)
                states = _run_text_tower(original, config, part.under("text_model."), call)
                texts = _head(original, part.under("visual_text_head."))(states)
                stages |= {f"{name}.video_embeds": embeds, f"{name}.text_video_embeds": texts}
                stages[f"{name}.logits_video_text"] = embeds @ texts.T
    return stages


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Modules with empty classes for packages that are not installed."""
    added: list[str] = []
    for path, names in UNUSED.items():
        parent, _, child = path.partition(".")
        if find_spec(parent) is None:
            sys.modules[parent], sys.modules[path] = ModuleType(parent), ModuleType(path)
            setattr(sys.modules[parent], child, sys.modules[path])
            vars(sys.modules[path]).update({name: type(name, (), {}) for name in names})
            added += [parent, path]
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]


def _encoder(original: ModuleType, config: Any, part: FoundPart) -> nn.Module:
    """The original's video encoder. Its own constructor takes frame towers by names of published ones alone."""
    settings = import_module("core.audio_visual_encoder.config").TransformerConfig(
        **{name: getattr(config, name) for name in SAME_NAMES}
    )
    encoder = original.VisualEncoder.__new__(original.VisualEncoder)
    nn.Module.__init__(encoder)
    encoder.proj = nn.Linear(config.vision_config.projection_dim, config.hidden_size, bias=False)
    encoder.data_proj = nn.Linear(config.hidden_size, config.hidden_size)
    encoder.visual_transformer = original.Transformer(settings)
    encoder.pe_encoder = build_tower(config.vision_config, part.under(FRAME_TOWER))
    return filled(encoder, part.under(f"{VISUAL}."))


def _head(original: ModuleType, part: FoundPart) -> nn.Module:
    out_dim, in_dim = part.shapes["proj.weight"]
    return filled(original.ContrastiveHead(in_dim, out_dim), part)


def _run_encoder(
    encoder: nn.Module, prefix: str, call: Mapping[str, Any]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The class token's output, and the stages of the video encoder in one call."""
    mask = call.get("padding_mask_videos")
    with recorded(encoder.visual_transformer.layers, prefix) as stages:
        output = encoder(call["pixel_values_videos"], padding_mask_videos=mask)
    stages |= {f"{prefix}pe_features": output.pe_output, f"{prefix}last_hidden_state": output.last_hidden_state}
    stages = stages if mask is None else {}
    return output.pooler_output, {**stages, f"{prefix}pooler_output": output.pooler_output}


def _run_text_tower(original: ModuleType, config: Any, part: FoundPart, call: Mapping[str, Any]) -> torch.Tensor:
    """The state of the texts' first token that the original takes for their embedding."""
    fields = {**config.text_config.to_dict(), "num_hidden_layers": 0, "layer_types": None}
    while f"layers.{fields['num_hidden_layers']}.mlp_norm.weight" in part.names:
        fields["num_hidden_layers"] += 1
    text_model = AutoModel.from_config(type(config.text_config)(**fields))
    filled(text_model, part)
    nth_layer = None if config.normalize_text else config.text_config.num_hidden_layers
    if nth_layer == fields["num_hidden_layers"]:
        # The original is made for transformers 4, whose last hidden state of all has not been through the norm.
        text_model.final_norm = nn.Identity()
    self = SimpleNamespace(config=SimpleNamespace(nth_text_layer=nth_layer), text_model=text_model)
    run = original.PEAudioVisual._get_text_output
    return run(self, call["input_ids"], call["attention_mask"]).pooler_output
