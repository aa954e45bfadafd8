"""PE core, lang and spatial of facebookresearch/perception_models (3e352cca) beside our models.

The checkout needs timm and einops to be installed.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vidformers.conversion.found import Found, FoundPart
from vidformers.conversion.originals import filled, importable, noise, recorded


ROWS, COLUMNS, FRAMES = 3, 2, 3


def example_calls(config: Any, architecture: str) -> dict[str, dict[str, Any]]:
    """Small calls that go through every part of a model, with the table of positions fitted to another grid."""
    if architecture == "PeVisionModel":
        return {"images": {"pixel_values": frames_of(config)}}
    text = {"input_ids": _text(getattr(config, "text_config", config))}
    if architecture == "PeCoreTextModel":
        return {"texts": text}
    frames = frames_of(config.vision_config)
    video = {**text, "pixel_values_videos": frames.unflatten(0, (2, FRAMES))}
    return {
        "images": {**text, "pixel_values": frames},
        "videos": video,
        "normalized": {**video, "normalize_frames": True},
    }


def frames_of(config: Any) -> torch.Tensor:
    """Six random images with a grid of 3 × 2 patches."""
    return noise(2 * FRAMES, config.num_channels, ROWS * config.patch_size, COLUMNS * config.patch_size)


def _text(config: Any) -> torch.Tensor:
    """Two random texts, the second one shorter."""
    last, length = config.vocab_size - 1, min(5, config.max_position_embeddings)
    ids = torch.randint(1, last, (2, length), generator=torch.Generator().manual_seed(0))
    ids[0, -1] = ids[1, length // 2] = last
    ids[1, length // 2 + 1 :] = 0
    return ids


@torch.no_grad()
def original_stages(
    repository: Path, config: Any, found: Found, calls: Mapping[str, Mapping[str, Any]]
) -> dict[str, torch.Tensor]:
    """What the original models give for the calls of `example_calls`."""
    part = found[""]
    with importable(repository, ("core",)):
        original, settings = (import_module(f"core.vision_encoder.{name}") for name in ("pe", "config"))
        if "images" in calls and "input_ids" not in calls["images"]:
            tower = build_tower(config, part.under("visual.") if "visual.conv1.weight" in part.names else part)
            return _run_tower(tower, "images.", calls["images"]["pixel_values"])
        text = settings.PETextConfig(**_text_settings(config))
        if "texts" in calls:
            tower = filled(original.TextTransformer(**vars(text)), part)
            return _run_text_tower(tower, "texts.", calls["texts"]["input_ids"])
        model = filled(original.CLIP(settings.PEConfig(**_vision_settings(config)), text), part)
        stages: dict[str, torch.Tensor] = {}
        for name, call in calls.items():
            stages |= _run_model(model, name, call)
    return stages


def _vision_settings(config: Any) -> dict[str, Any]:
    config = getattr(config, "vision_config", config)
    return {
        **_sizes(config),
        "patch_size": config.patch_size,
        "ls_init_value": config.layer_scale_init_value or None,
        "image_size": config.image_size,
        "use_cls_token": config.use_cls_token,
        "pool_type": "attn" if config.use_attention_pooling else "none",
        "attn_pooler_heads": config.pooler_num_attention_heads,
        "use_ln_post": config.use_post_norm,
    }


def _text_settings(config: Any) -> dict[str, Any]:
    config = getattr(config, "text_config", config)
    return {
        **_sizes(config),
        "context_length": config.max_position_embeddings,
        "vocab_size": config.vocab_size,
    }


def _sizes(config: Any) -> dict[str, Any]:
    """What both towers have; the original rounds the product of width and ratio down."""
    return {
        "width": config.hidden_size,
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "mlp_ratio": (config.intermediate_size + 0.5) / config.hidden_size,
        "output_dim": config.projection_dim or None,
    }


def build_tower(config: Any, part: FoundPart) -> nn.Module:
    """The original's vision tower with the tensors of a file."""
    original, settings = (import_module(f"core.vision_encoder.{name}") for name in ("pe", "config"))
    return filled(original.VisionTransformer(**vars(settings.PEConfig(**_vision_settings(config)))), part)


def _run_tower(tower: nn.Module, prefix: str, frames: torch.Tensor) -> dict[str, torch.Tensor]:
    """The stages of a vision tower."""
    with recorded(tower.transformer.resblocks, prefix) as stages:
        output = tower(frames)
    stages[f"{prefix}last_hidden_state"] = tokens = tower.forward_features(frames, norm=True)
    if tower.pool_type == "attn":
        stages[f"{prefix}pooler_output"] = tower._pool(tokens)
    if tower.proj_dim is not None:
        stages[f"{prefix}image_embeds"] = output
    return stages


def _run_text_tower(tower: nn.Module, prefix: str, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """The stages of a text tower; a video-text model is one, too, beside its other parts."""
    run = import_module("core.vision_encoder.pe").TextTransformer.forward
    with recorded(tower.transformer.resblocks, prefix) as stages:
        output = run(tower, input_ids)
    return {**stages, f"{prefix}text_embeds": output}


def _run_model(model: nn.Module, name: str, call: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The stages of a video-text model in one call."""
    frames = call["pixel_values"] if "pixel_values" in call else call["pixel_values_videos"].flatten(0, 1)
    texts = model.encode_text(call["input_ids"], normalize=True)
    if "pixel_values" in call:
        kind, embeds = "image", model.encode_image(frames, normalize=True)
    else:
        each = call.get("normalize_frames", False)
        kind, embeds = "video", model.encode_video(call["pixel_values_videos"], normalize=each)
        embeds = embeds if each else nn.functional.normalize(embeds, dim=-1)
    return {
        **_run_tower(model.visual, f"{name}.vision_model_output.", frames),
        **_run_text_tower(model, f"{name}.text_model_output.", call["input_ids"]),
        f"{name}.{kind}_embeds": embeds,
        f"{name}.text_embeds": texts,
        f"{name}.logits_per_{kind}": model.logit_scale.exp() * embeds @ texts.T,
    }
