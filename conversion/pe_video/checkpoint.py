"""PE-AV: files of facebookresearch/perception_models (commit 3e352cca) and the names of transformers 5.23's PE Video.

An original directory has `config.json` and `model.safetensors`, one flat state dict of the audio-video-text model in
`core/audio_visual_encoder/pe.py`. PE Video is its video and text part.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from vidformers.conversion.core import (
    Axis,
    Count,
    Drop,
    FamilyMap,
    Layout,
    Op,
    Part,
    Present,
    Reader,
    Rule,
    Shapes,
    Tensors,
    linear,
    rule,
)
from vidformers.conversion.pe_core.checkpoint import VISION


VISUAL = "audio_visual_model.visual_model."
MODERNBERT_LAYERS = 28
"""Layers of ModernBERT-large, the text tower of the published files, of which the original reads fewer."""

PE_ENCODERS = {
    "PE-Core-T16-384": ("vit_pe_core_tiny_patch16_384", 3),
    "PE-Core-S16-384": ("vit_pe_core_small_patch16_384", 6),
    "PE-Core-B16-224": ("vit_pe_core_base_patch16_224", 12),
    "PE-Core-L14-336": ("vit_pe_core_large_patch14_336", 16),
    "PE-Core-G14-448": ("vit_pe_core_gigantic_patch14_448", 16),
}
"""Architecture and attention heads of the frame towers that the original's configuration may name."""


# ------------------------------------------------------------------------------------------------ readers, operations


@dataclass(frozen=True)
class Heads(Reader):
    """A number of attention heads, from a projection into heads and the norm over the channels of one."""

    tensor: str
    norm: str = "visual_transformer.layers.0.self_attn.q_norm.weight"

    def read(self, shapes: Shapes) -> int:
        return shapes[self.tensor][0] // shapes[self.norm][0]


@dataclass(frozen=True)
class FirstLayers(Count):
    """How many layers there are; a model may have fewer, the first ones."""

    def agrees(self, given: int, shapes: Shapes) -> bool:
        return 0 < given <= self.read(shapes)


@dataclass(frozen=True)
class Constant(Op):
    """A tensor of one value that the original doesn't have."""

    value: float

    def forward(self, tensors: Tensors) -> Tensors:
        return [torch.full((1,), self.value)]

    def inverse(self, tensors: Tensors) -> Tensors:
        return []


# ------------------------------------------------------------------------------------------------------------- rules


def _temporal_blocks() -> tuple[Rule, ...]:
    source, repeat = "visual_transformer.layers.{i}", "num_hidden_layers"
    rules = []
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        name = f"self_attn.{name}"
        rules += linear(f"layers.{{i}}.{name}", f"{source}.{name}", bias_when="attention_bias", repeat=repeat)
    norms = ("self_attn.q_norm", "self_attn.k_norm", "input_layernorm", "post_attention_layernorm")
    for name in (*norms, "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"):
        rules.append(rule(f"layers.{{i}}.{name}.weight", f"{source}.{name}.weight", repeat=repeat))
    return tuple(rules)


def _temporal_embedder() -> tuple[Rule, ...]:
    source, target = "visual_transformer.embeddings", "patch_embedder"
    rules = [rule(f"{target}.class_embedding", f"{source}.cls_token")]
    for block in ("block1", "block2"):
        for name in ("groupnorm", "project"):
            rules += linear(f"{target}.resnet_block.{block}.{name}", f"{source}.resnet_block.{block}.{name}")
    return tuple(rules)


def _text_blocks() -> tuple[Rule, ...]:
    """The rules of the text tower's layers; the first one has no norm before its attention."""
    options = {"repeat": "num_hidden_layers"}
    names = ["attn.Wqkv.weight", "attn.Wo.weight", "mlp_norm.weight", "mlp.Wi.weight", "mlp.Wo.weight"]
    names = [f"layers.{{i}}.{name}" for name in names]
    norm = "layers.{i}.attn_norm.weight"
    unread = Drop("a layer after the one that the original takes text embeddings from")
    return (
        *(rule(name, name, **options) for name in names),
        rule(norm, norm, start=1, **options),
        *(rule((), name, unread, start=None, stop=MODERNBERT_LAYERS, **options) for name in (*names, norm)),
    )


def _head(target: str) -> tuple[Rule, ...]:
    return (*linear(f"{target}.layer_norm", "layer_norm"), rule(f"{target}.proj.weight", "proj.weight"))


# ------------------------------------------------------------------------------------------------------------- parts

FRAME_TOWER = replace(VISION, entries=("",), under=f"{VISUAL}pe_encoder.")
VIDEO_ENCODER = Part(
    entries=("",),
    under=VISUAL,
    rules=(
        rule("embedder.proj.weight", "proj.weight"),
        *linear("embedder.data_proj", "data_proj"),
        *_temporal_embedder(),
        *_temporal_blocks(),
        rule("norm.weight", "visual_transformer.norm.weight"),
        rule("output.weight", "visual_transformer.output.weight"),
    ),
    fields={
        "hidden_size": Axis("proj.weight", 0),
        "intermediate_size": Axis("visual_transformer.layers.0.mlp.gate_proj.weight", 0),
        "num_hidden_layers": Count("visual_transformer.layers.{i}.input_layernorm.weight"),
        "num_attention_heads": Heads("visual_transformer.layers.0.self_attn.q_proj.weight"),
        "num_key_value_heads": Heads("visual_transformer.layers.0.self_attn.k_proj.weight"),
        "head_dim": Axis("visual_transformer.layers.0.self_attn.q_norm.weight", 0),
        "attention_bias": Present("visual_transformer.layers.0.self_attn.q_proj.bias"),
    },
)
VIDEO_HEAD = Part(
    entries=("",),
    under="visual_head.",
    rules=_head("video_head"),
    fields={"projection_dim": Axis("proj.weight", 0)},
)
# The original compares embeddings by their dot products as they are.
TEXT_HEAD = Part(
    entries=("",),
    under="visual_text_head.",
    rules=(
        *_head("text_video_head"),
        rule("text_video_logit_scale", (), Constant(1.0)),
        rule("text_video_logit_bias", (), Constant(0.0)),
    ),
    fields={"projection_dim": Axis("proj.weight", 0)},
)
TEXT_TOWER = Part(
    entries=("",),
    under="text_model.",
    rules=(
        rule("embeddings.tok_embeddings.weight", "embeddings.tok_embeddings.weight"),
        rule("embeddings.norm.weight", "embeddings.norm.weight"),
        *_text_blocks(),
        rule("final_norm.weight", "final_norm.weight"),
    ),
    fields={
        "vocab_size": Axis("embeddings.tok_embeddings.weight", 0),
        "hidden_size": Axis("embeddings.tok_embeddings.weight", 1),
        "intermediate_size": Axis("layers.0.mlp.Wo.weight", 1),
        "num_hidden_layers": FirstLayers("layers.{i}.mlp_norm.weight"),
    },
    required=("num_attention_heads",),
)
PARTS = {
    "frame tower": FRAME_TOWER,
    "video encoder": VIDEO_ENCODER,
    "video head": VIDEO_HEAD,
    "text head": TEXT_HEAD,
    "text encoder": TEXT_TOWER,
}

LAYOUTS = (
    Layout(
        "PeVideoModel",
        {
            "frame tower": "video_encoder.embedder.vision_model.timm_model.",
            "video encoder": "video_encoder.",
            "video head": "",
            "text head": "",
            "text encoder": "text_model.",
        },
        configs={
            "frame tower": "video_config.vision_config",
            "video encoder": "video_config",
            "text encoder": "text_config",
        },
        videos="video_config.vision_config",
    ),
    Layout(
        "PeVideoEncoder",
        {"frame tower": "embedder.vision_model.timm_model.", "video encoder": ""},
        configs={"frame tower": "vision_config"},
        videos="vision_config",
    ),
)

NO_AUDIO = "PE Video is the model's video and text part"
LEFT_OUT = dict.fromkeys(
    (
        "audio_visual_model.audio_model",
        "audio_visual_model.audio_visual_transformer",
        "audio_head",
        "audio_text_head",
        "audio_plus_text_head",
        "audio_visual_head",
        "audio_visual_text_head",
        "visual_plus_text_head",
    ),
    NO_AUDIO,
)


# --------------------------------------------------------------------------------------------------- its config.json


def companion(config: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """What `config.json` says that no shape tells. What it leaves out are the original's defaults, which are ours."""
    if "audio_visual_model" not in config:
        return {}
    visual = config["audio_visual_model"].get("visual_model") or {}
    temporal, text = visual.get("visual_transformer") or {}, dict(config.get("text_model") or {})
    nth_layer = config.get("nth_text_layer", 22)
    if nth_layer is not None:
        text["num_hidden_layers"] = nth_layer
    for name in ("dtype", "layer_norm_eps", "model_type", "position_embedding_type", "torch_dtype"):
        text.pop(name, None)
    tower = PE_ENCODERS.get(visual.get("pe_encoder", "PE-Core-L14-336"))
    longest = temporal.get("max_position_embeddings", 10_000)
    return {
        "frame tower": {} if tower is None else {"architecture": tower[0], "num_attention_heads": tower[1]},
        "video encoder": {
            "max_position_embeddings": longest,
            "rms_norm_eps": temporal.get("rms_norm_eps", 1e-5),
            "attention_dropout": temporal.get("attention_dropout", 0.0),
            # `Transformer` computes the base from the longest sequence; its configuration's `rope_theta` is not read.
            "rope_parameters": {"rope_theta": max(10_000, 2 * longest), "rope_type": "default"},
        },
        "text head": {"normalize_text": nth_layer is None},
        "text encoder": {"num_attention_heads": 16, **text},
        "video_processor": {"num_frames": 16, "do_sample_frames": True} if visual.get("fixed_len_video") else {},
    }


MAP = FamilyMap(
    parts=PARTS,
    layouts=LAYOUTS,
    left_out=LEFT_OUT,
    required=(),
    processor={"size": "image_size"},
    companion=companion,
)
