"""VideoMAE V2 for the shared tests: dual masking, attention by directions, pooled encoders, its recorded cases."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tests.harness.family_spec import GoldenCase, GoldenRun, Tower, VideoSize
from tests.videomae.spec import DECODER, MODEL, PRETRAINING, SPEC, gradients, grid_of, num_visible, targets
from vidformers.models.videomae import VideoMAEVideoProcessor, detection_features, running_cell_mask
from vidformers.models.videomae.masking_videomae import split_decoded


NOT_THERE = "transformers has nothing of VideoMAE V2"


def _decoder_mask(config: Any, batch: int, size: VideoSize) -> torch.Tensor:
    """One start for all videos: the tiny grid has an odd side and three times."""
    return running_cell_mask(grid_of(config, size), 0.5, batch, start=1)


def _num_predicted(config: Any, size: VideoSize) -> int:
    return int((~_decoder_mask(config, 1, size)).sum())


def _dual_inputs(config: Any, batch: int, size: VideoSize, seed: int) -> dict[str, Any]:
    inputs = PRETRAINING.inputs(config, batch, size, seed)
    return {**inputs, "decode_masked_pos": _decoder_mask(config, batch, size)}


def _dual_batch() -> dict[str, Any]:
    dynamic = PRETRAINING.export.dynamic_shapes()
    return {**dynamic, "decode_masked_pos": dynamic["bool_masked_pos"]}


POOLED = replace(
    MODEL,
    variant="pooled",
    config={"use_mean_pooling": True, "use_pooler": True, "cos_attn": True},
    output="pooler_output",
    output_shape=lambda config, batch, size: (batch, config.hidden_size),
    loss=lambda output: output.pooler_output.square().mean(),
    calls={},
    stock=NOT_THERE,
    export="the encoder is exported without its pooled output, by the spec of VideoMAE",
)
DUAL = replace(
    PRETRAINING,
    variant="dual masking",
    config={"cos_attn": True},
    inputs=_dual_inputs,
    output_shape=lambda config, batch, size: (batch, _num_predicted(config, size), 3 * 2 * 8 * 8),
    towers=(
        PRETRAINING.towers[0],
        Tower(*DECODER, lambda config, size: num_visible(config, size) + _num_predicted(config, size), "decoder_"),
    ),
    stock=NOT_THERE,
    export=replace(PRETRAINING.export, dynamic_shapes=_dual_batch),
)


# The original's names of parameters whose gradients are recorded, and ours.
GRADIENTS = {
    "mask_token": "mask_token",
    "encoder_to_decoder.weight": "encoder_to_decoder.weight",
    "encoder.patch_embed.proj.bias": "videomae.embeddings.patch_embeddings.projection.bias",
    "encoder.blocks.0.attn.q_bias": "videomae.encoder.layer.0.attention.attention.q_bias",
    "encoder.norm.weight": "videomae.layernorm.weight",
    "decoder.blocks.0.mlp.fc2.bias": "decoder.decoder_layers.0.output.dense.bias",
    "decoder.norm.bias": "decoder.norm.bias",
    "decoder.head.bias": "decoder.head.bias",
}
SCALE_GRADIENT = {"encoder.blocks.0.attn.scale": "videomae.encoder.layer.0.attention.attention.scale"}
MASKS_ALONE = dict.fromkeys(("is_in_loss", "counts_in_loss"), "it follows from the two masks, which are given")


def _arguments(folder: Path, values: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
    """What `load_original` needs beside the file: what no shape tells."""
    fields = {"image_size": values["img_size"], "num_frames": values["all_frames"]}
    if "decoder_depth" in values:
        fields["num_attention_heads"] = values["encoder_num_heads"]
        fields["decoder_num_attention_heads"] = values["decoder_num_heads"]
    else:
        fields["num_attention_heads"] = values["num_heads"]
    return {"path": folder / "checkpoint.pt", **fields, **settings}


def _encoded(states: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
    """The input of the first block and the outputs of those that are recorded."""
    recorded = {f"hidden_states.{index}": state for index, state in enumerate(states[1:], start=1)}
    return {"patch_and_position": states[0], **recorded}


def _classified(blocks: tuple[int, ...], model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    video = inputs["video"].transpose(1, 2)
    output = model(video, output_hidden_states=True)
    states = _encoded(output.hidden_states)
    return {
        "patch_and_position": states["patch_and_position"],
        **{f"hidden_states.{index}": states[f"hidden_states.{index}"] for index in blocks},
        "features": model.pool(model.videomae(video).last_hidden_state),
        "logits": output.logits,
    }


def _reconstructed(
    names: Mapping[str, str], model: Any, inputs: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The stages of pre-training with normalized targets."""
    video, mask, not_decoded = inputs["video"].transpose(1, 2), inputs["bool_masked_pos"], inputs["decode_masked_pos"]
    with torch.enable_grad():
        output = model(video, mask, not_decoded)
    return {
        "encoder_last_hidden_state": model.videomae(video, mask).last_hidden_state,
        "logits": output.logits,
        "labels_normalized": _targets(model, video, not_decoded),
        "loss_normalized": output.loss,
        **gradients(model, output.loss, "grad_normalized.", names),
    }


def _reconstructed_as_v1(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without the decoder's mask, which gives the same where it is the opposite of the encoder's."""
    output = model(inputs["video"].transpose(1, 2), inputs["bool_masked_pos"])
    return {"logits_without_decode_mask_argument": output.logits, "loss_normalized": output.loss}


def _raw(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    video, not_decoded = inputs["video"].transpose(1, 2), inputs["decode_masked_pos"]
    loss = model(video, inputs["bool_masked_pos"], not_decoded).loss
    return {"labels_raw": _targets(model, video, not_decoded), "loss_raw": loss}


def _targets(model: Any, video: torch.Tensor, not_decoded: torch.Tensor) -> torch.Tensor:
    return targets(model, video, lambda video, grid: split_decoded(not_decoded, video, grid))


def _of_hub(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    output = model(inputs["video"].transpose(1, 2), output_hidden_states=True)
    first, *_, last = output.hidden_states
    return {"patch_and_position": first, "hidden_states.last": last, "features": output.pooler_output}


def _detected(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    pixels = VideoMAEVideoProcessor.for_detection(16)(inputs["video"], return_tensors="pt")["pixel_values"]
    outputs = {"pixels.first_window": pixels[0, :16].transpose(0, 1)}
    for name, stride in (("THUMOS14", 4), ("FINEACTION", 16)):
        features, starts = detection_features(model, inputs["video"], stride=stride)
        outputs |= {f"features.{name}": features, f"start_idx.{name}": starts}
    return outputs


def _finetuned(folder: str, blocks: tuple[int, ...] = (1, 2), **options: Any) -> GoldenCase:
    return GoldenCase(folder, (GoldenRun("", _arguments, partial(_classified, blocks)),), **options)


def _pretrained(folder: str, *more: GoldenRun, names: Mapping[str, str] = GRADIENTS, **options: Any) -> GoldenCase:
    runs = (
        GoldenRun("normalized targets", _arguments, partial(_reconstructed, names)),
        GoldenRun("raw targets", partial(_arguments, norm_pix_loss=False), _raw),
        *more,
    )
    return GoldenCase(folder, runs, unread=MASKS_ALONE, **options)


LISTS = "needs the names of the classes, which stand in the original's repository; a test of its own reads them"
NO_HEAD = dict.fromkeys(("head.weight", "head.bias"), "features are what the head would read")
GOLDENS = (
    _finetuned("finetune_base"),
    _finetuned("finetune_cls_norm"),
    _finetuned("finetune_cos_attn", committed=True),
    _finetuned("finetune_giant_patch14", blocks=(1, 3)),
    _finetuned("distilled_k710", unread=dict.fromkeys((f"logits_k{count}" for count in (400, 600, 700)), LISTS)),
    _pretrained("pretrain_dual_mask"),
    _pretrained("pretrain_dual_mask_patch14"),
    _pretrained("pretrain_dual_mask_compiled_names", committed=True),
    _pretrained("pretrain_cos_attn", names=GRADIENTS | SCALE_GRADIENT, committed=True),
    _pretrained("pretrain_no_decoder_mask", GoldenRun("as VideoMAE", _arguments, _reconstructed_as_v1)),
    GoldenCase("hub_directory", (GoldenRun("", lambda folder, values: {"path": folder}, _of_hub),), committed=True),
    GoldenCase("tad_features", (GoldenRun("", _arguments, _detected),), blind=NO_HEAD, committed=True),
)
FUNCTIONS = "it holds what functions give; tests/videomae/test_videomae_v2.py calls them"
SPEC_V2 = replace(
    SPEC,
    models=(DUAL, POOLED),
    many_frames=VideoSize(640, 16, 16),  # a tube mask hides a part of each frame
    goldens=GOLDENS,
    later_goldens=dict.fromkeys(("joint_masks", "mask_samplers", "test_views"), FUNCTIONS),
    goldens_folder="videomae_v2",
    committed_folder="videomae_v2",
)
