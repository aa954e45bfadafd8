"""MCG-NJU/VideoMAE at 14ef8d85, or OpenGVLab/VideoMAEv2 at 29eab1e8, beside our model. Both need timm."""

from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from vidformers.conversion.found import FoundPart
from vidformers.conversion.ops import ConversionError
from vidformers.conversion.originals import filled, importable, noise, recorded


Stages = dict[str, torch.Tensor]


def example_calls(config: Any, architecture: str) -> dict[str, dict[str, Any]]:
    """A small video, whose sides differ."""
    grid = tuple(min(most, count) for most, count in zip((2, 3, 4), config.token_grid, strict=True))
    call = _call(config, architecture, grid)
    return {"video": {**call, "interpolate_pos_encoding": True}}


def original_calls(config: Any, architecture: str) -> dict[str, dict[str, Any]]:
    """A video of the configured size, which alone the original takes."""
    return {"video": _call(config, architecture, config.token_grid)}


def _call(config: Any, architecture: str, grid: tuple[int, int, int]) -> dict[str, torch.Tensor]:
    """A random video with so many tokens, of which a model that reconstructs sees half, the same at every time."""
    time, rows, columns = grid
    height, width = config.patch_height_width
    frames = time * config.tubelet_size
    call = {"pixel_values": noise(1, frames, config.num_channels, rows * height, columns * width)}
    if architecture == "VideoMAEForPreTraining":
        order = torch.randperm(rows * columns, generator=torch.Generator().manual_seed(1))
        call["bool_masked_pos"] = (order >= rows * columns // 2).repeat(1, time)  # (1, N)
    return call


@torch.no_grad()
def original_stages(
    repository: Path, config: Any, found: Mapping[str, FoundPart], calls: Mapping[str, Mapping[str, Any]]
) -> Stages:
    """What the original code gives for the call of `original_calls`.

    Of a classifier whose head is new, the hidden states alone.
    """
    part, call = found[""], calls["video"]
    video = call["pixel_values"].transpose(1, 2)  # (B, C, T, H, W)
    is_v2 = (repository / "models" / "modeling_finetune.py").is_file()
    if config.cos_attn and not is_v2:
        raise ConversionError(f"{repository}: has no `cos_attn`; take a checkout of OpenGVLab/VideoMAEv2.")
    place = {"packages": ("models",)} if is_v2 else {"modules": ("modeling_finetune", "modeling_pretrain")}
    with importable(repository, **place):
        finetune, pretrain = (
            import_module(f"models.{name}" if is_v2 else name) for name in ("modeling_finetune", "modeling_pretrain")
        )
        if "bool_masked_pos" in call:
            return _reconstruct(pretrain, config, part, video, call["bool_masked_pos"])
        begin = next(
            (begin for begin in ("encoder.", "model.") if f"{begin}patch_embed.proj.weight" in part.names), ""
        )
        return _encode(finetune, config, part.under(begin), video)


def _reconstruct(module: ModuleType, config: Any, part: FoundPart, video: torch.Tensor, mask: torch.Tensor) -> Stages:
    if not isinstance(config.patch_size, int) or config.num_channels != 3:
        raise ConversionError("the original pre-trains with square patches of three channels alone.")
    model = module.PretrainVisionTransformer(
        **_arguments(config),
        encoder_embed_dim=config.hidden_size,
        encoder_depth=config.num_hidden_layers,
        encoder_num_heads=config.num_attention_heads,
        decoder_num_classes=3 * config.tubelet_size * config.patch_size**2,
        decoder_embed_dim=config.decoder_hidden_size,
        decoder_depth=config.decoder_num_hidden_layers,
        decoder_num_heads=config.decoder_num_attention_heads,
    )
    if not config.use_learnable_pos_emb:  # Its encoder takes 16 frames for granted.
        model.encoder.pos_embed = module.get_sinusoid_encoding_table(mask.shape[1], config.hidden_size)
    model.pos_embed = module.get_sinusoid_encoding_table(mask.shape[1], config.decoder_hidden_size)
    filled(model, part)
    encoder, decoder = recorded(model.encoder.blocks, "video."), recorded(model.decoder.blocks, "video.decoder_")
    with encoder as encoded, decoder as decoded:
        logits = model(video, mask)
    return {**encoded, **decoded, "video.logits": logits}


def _encode(module: ModuleType, config: Any, part: FoundPart, video: torch.Tensor) -> Stages:
    """A fine-tuned model, or its encoder where our model is one or the file has no head for it."""
    model = module.VisionTransformer(
        **_arguments(config),
        in_chans=config.num_channels,
        num_classes=config.num_labels,
        embed_dim=config.hidden_size,
        depth=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        all_frames=config.num_frames,
        use_mean_pooling=config.use_mean_pooling,
    )
    is_encoder = config.architectures == ["VideoMAEModel"]
    has_head = not is_encoder and "head.weight" in part.names
    if not has_head:
        model.head = nn.Identity()
    if not has_head and not config.use_pooler:
        model.fc_norm = None
    filled(model, part, drops=part.names.keys() - model.state_dict().keys())
    with recorded(model.blocks, "video.") as stages:
        logits = model(video)
    if has_head:
        stages["video.logits"] = logits
    elif config.use_pooler:
        stages["video.pooler_output"] = logits
    if is_encoder:
        last = stages[f"video.hidden_states.{config.num_hidden_layers}"]
        stages["video.last_hidden_state"] = model.norm(last)  # The identity where tokens are pooled first.
    return stages


def _arguments(config: Any) -> dict[str, Any]:
    """What both of the original's models take."""
    return {
        "img_size": config.image_height_width,
        "patch_size": config.patch_size,
        "tubelet_size": config.tubelet_size,
        "mlp_ratio": config.intermediate_size / config.hidden_size,
        "qkv_bias": config.qv_bias,
        "init_values": config.layer_scale_init_value,
        "use_learnable_pos_emb": config.use_learnable_pos_emb,
        "norm_layer": partial(nn.LayerNorm, eps=config.layer_norm_eps),
        **({"cos_attn": True} if config.cos_attn else {}),
    }
