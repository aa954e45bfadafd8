"""facebookresearch/vjepa2 at c2963a47 beside our model. The checkout needs timm and einops to be installed."""

from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vidformers.conversion.found import Found
from vidformers.conversion.ops import ConversionError
from vidformers.conversion.originals import filled, importable, noise, recorded


def example_calls(config: Any, architecture: str) -> dict[str, dict[str, Any]]:
    """Small calls that go through every part of a model.

    Where the predictor runs, the video has the crop's grid, on which the original numbers positions; elsewhere its
    three sides differ, so that a swapped axis shows. Context tokens come before target tokens, so that the order in
    which implementations keep them is the same.
    """
    side = config.crop_size // config.patch_size
    if architecture == "VJEPA2ForActionAnticipation":
        times = torch.tensor([0.0, 1.0])
        return {"video": {"pixel_values_videos": _video(config, 1, side, side), "anticipation_times": times}}
    if architecture == "VJEPA2ACModel":
        return {"video": _robot_call(config, side)}
    calls = {"video": {"pixel_values_videos": _video(config, 2, min(3, side), min(4, side))}}
    if architecture == "VJEPA2Model" and config.use_predictor:
        ids = torch.linspace(0, 2 * side**2 - 1, min(24, 2 * side**2)).long().expand(2, -1)
        context, target = ids.tensor_split(2, dim=1)
        video = {"pixel_values_videos": _video(config, 2, side, side)}
        calls["masked"] = {**video, "context_mask": context, "target_mask": target}
        calls["video"]["skip_predictor"] = True
    return calls


def _robot_call(config: Any, side: int) -> dict[str, torch.Tensor]:
    """Four frames, which are four steps, and their conditions."""
    video, width = _video(config, 2, side, side), config.action_embed_dim
    conditions = {name: noise(*video.shape[:2], width, seed=i) for i, name in ((1, "actions"), (2, "states"))}
    if config.use_extrinsics:
        conditions["extrinsics"] = noise(*video.shape[:2], width - 1, seed=3)
    return {"pixel_values_videos": video, **conditions}


def _video(config: Any, time: int, rows: int, columns: int) -> torch.Tensor:
    """Two random videos (2, T, C, H, W) with a grid of so many tokens."""
    size = (time * config.tubelet_size, config.in_chans, rows * config.patch_size, columns * config.patch_size)
    return noise(2, *size)


@torch.no_grad()
def original_stages(
    repository: Path, config: Any, found: Found, calls: Mapping[str, Mapping[str, Any]]
) -> dict[str, torch.Tensor]:
    """What the original encoder, predictor and probe give for the calls of `example_calls`."""
    if config.hierarchical_layers:
        raise ConversionError(f"{repository}: only V-JEPA 2 and 2-AC can be compared with a checkout, not V-JEPA 2.1.")
    with importable(repository, ("src", "evals")):
        encoder = _encoder(config, found)
        if "predictor" in found and "action_encoder.weight" in found["predictor"].names:
            return _act(config, found, encoder, calls["video"])
        video = calls["video"]["pixel_values_videos"].transpose(1, 2)  # (B, C, T, H, W)
        with recorded(encoder.blocks, "video.") as stages:
            tokens = encoder(video)
        if "probe" in found and "predictor" in found:
            return stages | _anticipate(config, found, encoder, video, calls["video"]["anticipation_times"])
        if "probe" in found:
            return stages | {"video.logits": _classify(config, found, encoder, video)}
        stages["video.last_hidden_state"] = tokens
        if "masked" in calls:
            stages |= _predict(config, found, encoder, calls["masked"])
    return stages


def _encoder(config: Any, found: Found) -> nn.Module:
    encoder = import_module("src.models.vision_transformer").VisionTransformer(
        **_arguments(config, config.frames_per_clip),
        in_chans=config.in_chans,
        depth=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        mlp_ratio=config.mlp_ratio,
        use_rope=True,
    )
    return filled(encoder, found["encoder"], drops=("pos_embed",))


def _predictor(config: Any, found: Found, num_frames: int) -> nn.Module:
    predictor = import_module("src.models.predictor").VisionTransformerPredictor(
        **_predictor_arguments(config, num_frames),
        use_mask_tokens=True,
        num_mask_tokens=config.pred_num_mask_tokens,
        use_rope=True,
    )
    return filled(predictor, found["predictor"], drops=("predictor_pos_embed",))


def _predictor_arguments(config: Any, num_frames: int) -> dict[str, Any]:
    """What both of the original's predictors take."""
    return {
        **_arguments(config, num_frames),
        "predictor_embed_dim": config.pred_hidden_size,
        "depth": config.pred_num_hidden_layers,
        "num_heads": config.pred_num_attention_heads,
        "mlp_ratio": config.pred_mlp_ratio,
    }


def _arguments(config: Any, num_frames: int) -> dict[str, Any]:
    """What the original's encoder and predictors take."""
    return {
        "img_size": (config.crop_size, config.crop_size),
        "patch_size": config.patch_size,
        "num_frames": num_frames,
        "tubelet_size": config.tubelet_size,
        "embed_dim": config.hidden_size,
        "qkv_bias": config.qkv_bias,
        "norm_layer": partial(nn.LayerNorm, eps=1e-6),
    }


def _predict(config: Any, found: Found, encoder: nn.Module, call: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    predictor = _predictor(config, found, config.frames_per_clip)
    context, target = call["context_mask"], call["target_mask"]
    stages = {"masked.last_hidden_state": encoder(call["pixel_values_videos"].transpose(1, 2), context)}
    stages["masked.predictor_output.last_hidden_state"] = predictor(*stages.values(), context, target)
    return stages


def _act(config: Any, found: Found, encoder: nn.Module, call: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Frames that are encoded one by one, each repeated to a tubelet, and what follows from them."""
    predictor = import_module("src.models.ac_predictor").VisionTransformerPredictorAC(
        **_predictor_arguments(config, call["pixel_values_videos"].shape[1] * config.tubelet_size),
        action_embed_dim=config.action_embed_dim,
        use_extrinsics=config.use_extrinsics,
    )
    clips = call["pixel_values_videos"].flatten(0, 1)[:, :, None].repeat(1, 1, config.tubelet_size, 1, 1)
    tokens = encoder(clips).unflatten(0, call["pixel_values_videos"].shape[:2]).flatten(1, 2)  # (B, T·h·w, D)
    tokens = nn.functional.layer_norm(tokens, tokens.shape[-1:])
    conditions = [call[name] for name in ("actions", "states", "extrinsics") if name in call]
    return {
        "video.last_hidden_state": tokens,
        "video.predictor_output.last_hidden_state": filled(predictor, found["predictor"])(tokens, *conditions),
    }


def _classify(config: Any, found: Found, encoder: nn.Module, video: torch.Tensor) -> torch.Tensor:
    probe = import_module("src.models.attentive_pooler").AttentiveClassifier(
        embed_dim=config.hidden_size,
        num_heads=config.pooler_num_attention_heads,
        depth=config.num_pooler_layers + 1,
        num_classes=config.num_labels,
    )
    encoder.out_layers = config.out_layers
    tokens = encoder(video)
    return filled(probe, found["probe"])(torch.cat(tokens, dim=1) if config.out_layers else tokens)


def _anticipate(
    config: Any, found: Found, encoder: nn.Module, video: torch.Tensor, times: torch.Tensor
) -> dict[str, torch.Tensor]:
    wrapper = import_module("evals.action_anticipation_frozen.modelcustom.vit_encoder_predictor_concat_ar")
    probes = import_module("evals.action_anticipation_frozen.models")
    # The predictor lays its mask tokens out over all frames that it is built for: clip, waiting time and prediction.
    steps = int(times.max() * config.anticipation_frames_per_second / config.tubelet_size)
    num_frames = video.shape[2] + steps * config.tubelet_size + config.anticipation_num_output_frames
    model = wrapper.AnticipativeWrapper(
        encoder,
        _predictor(config, found, num_frames),
        frames_per_second=config.anticipation_frames_per_second,
        crop_size=config.crop_size,
        patch_size=config.patch_size,
        tubelet_size=config.tubelet_size,
        num_output_frames=config.anticipation_num_output_frames,
        num_steps=config.anticipation_num_steps,
        no_encoder=not config.anticipation_use_encoder_tokens,
    )
    probe = probes.AttentiveClassifier(
        verb_classes=range(config.num_verb_labels),
        noun_classes=range(config.num_noun_labels),
        action_classes=range(config.num_labels),
        embed_dim=config.hidden_size,
        num_heads=config.pooler_num_attention_heads,
        depth=config.num_pooler_layers + 1,
        use_activation_checkpointing=False,
    )
    tokens = model(video, times)
    logits = filled(probe, found["probe"])(tokens)
    names = {"verb": "video.verb_logits", "noun": "video.noun_logits", "action": "video.logits"}
    return {"video.last_hidden_state": tokens, **{names[name]: value for name, value in logits.items()}}
