"""google-deepmind/videoprism at d481d91b beside our model. The checkout needs jax, flax, einshape and einops."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidformers.conversion.found import FoundPart
from vidformers.conversion.originals import importable, two_texts


FRAMES, PATCHES_A_SIDE = 3, 2


def example_calls(config: Any, architecture: str) -> dict[str, dict[str, Any]]:
    """Small calls that go through every part of a model, with both position tables fitted to the input.

    The original's models take square frames alone. One call has frames that only fill the batch.
    """
    calls: dict[str, dict[str, Any]] = {}
    if architecture != "VideoPrismTextModel":
        vision = getattr(config, "vision_config", config)
        video = {"pixel_values_videos": _video(vision), "interpolate_pos_encoding": True}
        if architecture in ("VideoPrismClipModel", "VideoPrismVideoModel"):
            video["output_frame_embeddings"] = True
        mask = torch.arange(FRAMES) < torch.tensor([[FRAMES], [FRAMES - 1]])
        calls = {"video": video, "padded": {**video, "padding_mask_videos": mask}}
    if architecture in ("VideoPrismTextModel", "VideoPrismClipModel"):
        text = two_texts(getattr(config, "text_config", config).vocab_size)
        calls = {name: {**call, **text} for name, call in calls.items()} or {"text": text}
    return calls


def _video(config: Any) -> torch.Tensor:
    """Two random videos (2, T, C, H, W) with values in 0…1."""
    side = PATCHES_A_SIDE * config.tubelet_size[1]
    size = (2, FRAMES, config.num_channels, side, side)
    return torch.rand(size, generator=torch.Generator().manual_seed(0))


def original_stages(
    repository: Path, config: Any, found: Mapping[str, FoundPart], calls: Mapping[str, Mapping[str, Any]]
) -> dict[str, torch.Tensor]:
    """What the original model gives for the calls of `example_calls`."""
    with importable(repository, ("videoprism",)):
        encoders, part = import_module("videoprism.encoders"), found[""]
        arrays = {name: _jax(part.read(name).float()) for name in part.names}
        variables = {"params": import_module("flax.traverse_util").unflatten_dict(arrays, sep="/")}
        scan = any("x_layers/" in name for name in arrays)
        run = _encode
        if config.architectures == ["VideoPrismVisionModel"]:
            model = encoders.FactorizedEncoder(**encoder_parameters(config, scan))
        elif config.architectures == ["VideoPrismForVideoClassification"]:
            parameters = encoder_parameters(config, scan)
            model = encoders.FactorizedVideoClassifier(encoder_params=parameters, num_classes=config.num_labels)
        else:
            model, run = encoders.FactorizedVideoCLIP(**clip_parameters(config, scan)), _embed
        stages = {}
        for name, call in calls.items():
            outputs = run(model, variables, call, config)
            stages |= {f"{name}.{key}": torch.tensor(np.array(value)) for key, value in outputs.items()}
    return stages


def _jax(tensor: torch.Tensor) -> Any:
    """A copy for JAX, which may overwrite memory that it shares."""
    return import_module("jax.numpy").array(tensor.numpy(), copy=True)


def encoder_parameters(config: Any, scan: bool) -> dict[str, Any]:
    """What the original's `FactorizedEncoder` takes."""
    return {
        "patch_size": config.tubelet_size[1],
        "pos_emb_shape": (config.num_frames, *config.position_grid),
        "model_dim": config.hidden_size,
        "num_spatial_layers": config.num_spatial_layers,
        "num_temporal_layers": config.num_temporal_layers,
        "num_heads": config.num_attention_heads,
        "mlp_dim": config.intermediate_size,
        "atten_logit_cap": config.attn_logit_softcapping,
        "scan": scan,
    }


def clip_parameters(config: Any, scan: bool) -> dict[str, Any]:
    """For the video-text model, of which a tower's configuration describes its own half."""
    vision, text = getattr(config, "vision_config", config), getattr(config, "text_config", config)
    parameters = {"model_dim": text.hidden_size, "num_heads": text.num_attention_heads, "scan": scan}
    if hasattr(vision, "num_spatial_layers"):
        parameters |= encoder_parameters(vision, scan) | {"num_auxiliary_layers": vision.num_auxiliary_layers}
    if hasattr(text, "vocab_size"):
        parameters |= {
            "vocabulary_size": text.vocab_size,
            "enable_causal_atten": text.enable_causal_attention,
            "num_unimodal_layers": text.num_hidden_layers,
            "norm_policy": text.norm_policy,
            "atten_logit_cap": text.attn_logit_softcapping,
        }
    return parameters


def _inputs(call: Mapping[str, Any]) -> dict[str, Any]:
    """A call's videos (B, T, H, W, C) and paddings, 1 where there is nothing, for the original."""
    inputs = {}
    if "pixel_values_videos" in call:
        inputs["inputs"] = _jax(call["pixel_values_videos"].permute(0, 1, 3, 4, 2))
    if "padding_mask_videos" in call:
        inputs["frame_paddings"] = _jax((~call["padding_mask_videos"]).float())
    if "input_ids" in call:
        inputs["text_token_ids"] = _jax(call["input_ids"].int())
        inputs["text_paddings"] = _jax(1 - call["attention_mask"].float())
    return inputs


def _encode(model: Any, variables: dict, call: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """The encoder's features, or a classifier's logits and what leads to them."""
    output, stages = model.apply(variables, **_inputs(call), return_intermediate=True)
    pooled = stages.pop("global_embeddings", None)
    return {
        **stages,
        **({"last_hidden_state": output} if pooled is None else {"pooler_output": pooled, "logits": output}),
    }


def _embed(model: Any, variables: dict, call: Mapping[str, Any], config: Any) -> dict[str, Any]:
    towers = [getattr(config, name) for name in ("vision_config", "text_config") if hasattr(config, name)] or [config]
    video, text, outputs = model.apply(
        variables, **_inputs(call), normalize=towers[0].apply_l2norm, return_intermediate=True
    )
    if len(towers) == 1:
        return {**outputs, "pooler_output": text if video is None else video}
    return {
        **{f"video_model_output.{name}": value for name, value in outputs.items()},
        "video_embeds": video,
        "text_embeds": text,
    }
