"""VideoMAE for the shared tests."""

from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from transformers.models.videomae import modeling_videomae as stock_modeling

from tests.harness.family_spec import (
    Called,
    Export,
    FamilySpec,
    GoldenCase,
    GoldenRun,
    ModelSpec,
    OffSize,
    ProcessorSpec,
    Stock,
    Tower,
    VideoSize,
)
from vidformers import tube_mask
from vidformers.layers.patchify import Grid
from vidformers.models.videomae.masking_videomae import split_tokens
from vidformers.models.videomae.record import FAMILY as VIDEOMAE


# transformers fills a position table with Python's numbers one by one; once for every size is enough.
stock_modeling.get_sinusoid_encoding_table = cache(stock_modeling.get_sinusoid_encoding_table)

# Widths, depths and head counts all differ, so that one in the place of another shows.
TINY = {
    "image_size": [32, 24],
    "patch_size": 8,
    "num_frames": 6,
    "tubelet_size": 2,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "decoder_hidden_size": 30,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 3,
    "decoder_intermediate_size": 90,
    "num_labels": 5,
    "initializer_range": 0.2,
}
SIZE = VideoSize(6, 32, 24)
MASK_RATIO = 0.7


def grid_of(config: Any, size: VideoSize) -> tuple[int, int, int]:
    rows, columns = config.patch_height_width
    return size.frames // config.tubelet_size, size.height // rows, size.width // columns


def _num_tokens(config: Any, size: VideoSize) -> int:
    time, rows, columns = grid_of(config, size)
    return time * rows * columns


def num_visible(config: Any, size: VideoSize) -> int:
    time, rows, columns = grid_of(config, size)
    return time * (rows * columns - int(MASK_RATIO * rows * columns))


def _num_masked(config: Any, size: VideoSize) -> int:
    return _num_tokens(config, size) - num_visible(config, size)


def _video(config: Any, batch: int, size: VideoSize, seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, size.frames, config.num_channels, size.height, size.width)
    inputs = {"pixel_values": torch.randn(shape, generator=generator)}
    return inputs if grid_of(config, size) == config.token_grid else {**inputs, "interpolate_pos_encoding": True}


def _masked_video(config: Any, batch: int, size: VideoSize, seed: int) -> dict[str, Any]:
    mask = tube_mask(grid_of(config, size), MASK_RATIO, batch, seed)
    return {**_video(config, batch, size, seed), "bool_masked_pos": mask}


def _mask(config: Any, batch: int, size: VideoSize) -> dict[str, torch.Tensor]:
    return {"bool_masked_pos": tube_mask(grid_of(config, size), MASK_RATIO, batch, seed=1)}


def _numbers(config: Any, batch: int, size: VideoSize) -> dict[str, torch.Tensor]:
    mask = _mask(config, batch, size)["bool_masked_pos"]
    return {"bool_masked_pos": mask.nonzero()[:, 1].view(batch, -1).flip(1)}


def _labels(config: Any, batch: int) -> dict[str, torch.Tensor]:
    return {"labels": torch.arange(batch) % config.num_labels}


ENCODER = ("", "num_hidden_layers", "hidden_size", "num_attention_heads")
DECODER = ("", "decoder_num_hidden_layers", "decoder_hidden_size", "decoder_num_attention_heads")
OFF_SIZES = (
    OffSize(VideoSize(6, 24, 40)),
    OffSize(VideoSize(10, 48, 16)),
    OffSize(VideoSize(2, 8, 8)),
    OffSize(VideoSize(7, 32, 24), kept=SIZE),
    OffSize(VideoSize(4, 37, 31), kept=VideoSize(4, 32, 24)),
)
EXAMPLE, OTHER = (2, VideoSize(4, 40, 16)), (3, VideoSize(10, 24, 32))
STOCK = {
    "disk_names": {"query.bias": "q_bias", "value.bias": "v_bias"},
    "lacks": ("layer_scale_init_value", "use_learnable_pos_emb", "use_pooler", "cos_attn"),
    "other_defaults": {"layer_norm_eps": "1e-6 is the original's; directories that say another one keep it"},
}
HEAD_EPS = {"head_layer_norm_eps": 1e-5}


def _dynamic_video() -> dict[str, Any]:
    names = {0: "batch", 1: "steps", 3: "rows", 4: "columns"}
    dims = {axis: torch.export.Dim(name, min=1, max=64) for axis, name in names.items()}
    axes = {0: dims[0], 1: TINY["tubelet_size"] * dims[1], 3: TINY["patch_size"] * dims[3]}
    return {"pixel_values": {**axes, 4: TINY["patch_size"] * dims[4]}, "interpolate_pos_encoding": None}


def _dynamic_batch() -> dict[str, Any]:
    batch = torch.export.Dim("batch", max=64)
    return {"pixel_values": {0: batch}, "bool_masked_pos": {0: batch}}


SHALLOW = {"num_hidden_layers": 1, "decoder_num_hidden_layers": 1}
CALLED = (
    Called("*drop_path", "one module drops both branches of a block", lambda config, size: [1, 1]),
    Called("*position_embeddings", "one table serves all videos", lambda config, size: [None]),
)

MODEL = ModelSpec(
    name="VideoMAEModel",
    called=CALLED,
    shallow=SHALLOW,
    inputs=_video,
    config={"use_mean_pooling": False},
    output="last_hidden_state",
    output_shape=lambda config, batch, size: (batch, _num_tokens(config, size), config.hidden_size),
    towers=(Tower(*ENCODER, _num_tokens),),
    loss=lambda output: output.last_hidden_state.square().mean(),
    calls={"mask": _mask, "numbers of masked tokens": _numbers},
    stock=Stock("VideoMAEConfig", "VideoMAEModel", **STOCK),
    export=Export(_dynamic_video, EXAMPLE, OTHER),
    off_sizes=OFF_SIZES,
)
PRETRAINING = ModelSpec(
    name="VideoMAEForPreTraining",
    called=CALLED,
    shallow=SHALLOW,
    inputs=_masked_video,
    output="logits",
    output_shape=lambda config, batch, size: (batch, _num_masked(config, size), 3 * 2 * 8 * 8),
    towers=(Tower(*ENCODER, num_visible), Tower(*DECODER, _num_tokens, prefix="decoder_")),
    calls={"numbers of masked tokens": _numbers},
    stock=Stock("VideoMAEConfig", "VideoMAEForPreTraining", config={"use_mean_pooling": False, **HEAD_EPS}, **STOCK),
    export=Export(_dynamic_batch, (2, SIZE), (3, SIZE)),
    off_sizes=tuple(off for off in OFF_SIZES if off.size != VideoSize(2, 8, 8)),  # its one token cannot be masked
)
CLASSIFIER = ModelSpec(
    name="VideoMAEForVideoClassification",
    called=CALLED,
    shallow=SHALLOW,
    inputs=_video,
    output="logits",
    output_shape=lambda config, batch, size: (batch, config.num_labels),
    towers=(Tower(*ENCODER, _num_tokens),),
    training_inputs=_labels,
    stock=Stock("VideoMAEConfig", "VideoMAEForVideoClassification", config=HEAD_EPS, **STOCK),
    export=Export(_dynamic_video, EXAMPLE, OTHER),
    off_sizes=OFF_SIZES,
)


# The original's names of parameters whose gradients are recorded, and ours.
PRETRAINING_GRADIENTS = {
    "mask_token": "mask_token",
    "encoder_to_decoder.weight": "encoder_to_decoder.weight",
    "encoder.patch_embed.proj.bias": "videomae.embeddings.patch_embeddings.projection.bias",
    "encoder.blocks.0.attn.q_bias": "videomae.encoder.layer.0.attention.attention.q_bias",
    "encoder.blocks.0.attn.v_bias": "videomae.encoder.layer.0.attention.attention.v_bias",
    "encoder.norm.weight": "videomae.layernorm.weight",
    "decoder.blocks.0.attn.v_bias": "decoder.decoder_layers.0.attention.attention.v_bias",
    "decoder.norm.bias": "decoder.norm.bias",
    "decoder.head.bias": "decoder.head.bias",
}
PATCH_GRADIENT = {"encoder.patch_embed.proj.weight": "videomae.embeddings.patch_embeddings.projection.weight"}
FINETUNING_GRADIENTS = {
    "patch_embed.proj.bias": "videomae.embeddings.patch_embeddings.projection.bias",
    "blocks.0.attn.q_bias": "videomae.encoder.layer.0.attention.attention.q_bias",
    "blocks.0.attn.v_bias": "videomae.encoder.layer.0.attention.attention.v_bias",
    "blocks.1.mlp.fc1.bias": "videomae.encoder.layer.1.intermediate.dense.bias",
    "fc_norm.weight": "fc_norm.weight",
    "head.bias": "classifier.bias",
}


def gradients(model: Any, loss: torch.Tensor, prefix: str, names: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """Gradients of parameters, under the names that they are recorded by."""
    found = torch.autograd.grad(loss, [model.get_parameter(ours) for ours in names.values()])
    return {prefix + original: gradient for original, gradient in zip(names, found, strict=True)}


def _arguments(folder: Path, values: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
    """What `load_original` needs beside the file: what no shape tells."""
    is_pretraining = "decoder_depth" in values
    fields = {
        "num_attention_heads": values["encoder_num_heads" if is_pretraining else "num_heads"],
        "image_size": values["img_size"],
        "num_frames": values["num_frames" if is_pretraining else "all_frames"],
    }
    if is_pretraining:
        fields["decoder_num_attention_heads"] = values["decoder_num_heads"]
    return {"path": folder / "checkpoint.pt", **fields, **settings}


def _frames_first(inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The original's (B, C, T, H, W) as ours (B, T, C, H, W)."""
    return inputs["pixel_values"].transpose(1, 2)


def _classified(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    video = _frames_first(inputs)
    with torch.enable_grad():
        output = model(video, labels=inputs.get("labels"), output_hidden_states=True)
    stages = {
        "pos_embed": model.videomae.embeddings.position_embeddings.table,
        **{f"hidden_states.{index}": state for index, state in enumerate(output.hidden_states)},
        "features": model.pool(model.videomae(video).last_hidden_state),
        "logits": output.logits,
    }
    if output.loss is not None:
        stages["loss"] = output.loss[None]
        stages |= gradients(model, output.loss, "grad.", FINETUNING_GRADIENTS)
    return stages


def _reconstructed(
    names: Mapping[str, str], model: Any, inputs: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The stages of pre-training with normalized targets."""
    video, mask = _frames_first(inputs), inputs["bool_masked_pos"]
    with torch.enable_grad():
        output = model(video, mask)
    encoded = model.videomae(video, mask).last_hidden_state
    return {
        "encoder_pos_embed": model.videomae.embeddings.position_embeddings.table,
        "decoder_pos_embed": model.position_embeddings.table,
        "encoder_last_hidden_state": encoded,
        "encoder_to_decoder": model.encoder_to_decoder(encoded),
        "logits": output.logits,
        "labels_normalized": _targets(model, video, mask),
        "loss_normalized": output.loss[None],
        **gradients(model, output.loss, "grad_normalized.", names),
    }


def _raw_targets(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    video, mask = _frames_first(inputs), inputs["bool_masked_pos"]
    return {"labels_raw": _targets(model, video, mask), "loss_raw": model(video, mask).loss[None]}


def _targets(model: Any, video: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return targets(model, video, lambda video, grid: split_tokens(mask, video, grid)[1])


def targets(model: Any, video: torch.Tensor, numbers: Callable[[torch.Tensor, Grid], torch.Tensor]) -> torch.Tensor:
    """What logits of the tokens with some numbers are compared with."""
    video, grid = model.videomae.embeddings.cut(video)
    return model.targets(video, grid, numbers(video, grid))


def _finetuned(folder: str, **options: Any) -> GoldenCase:
    return GoldenCase(folder, (GoldenRun("", _arguments, _classified),), **options)


def _pretrained(folder: str, names: Mapping[str, str] = PRETRAINING_GRADIENTS, **options: Any) -> GoldenCase:
    runs = (
        GoldenRun("normalized targets", _arguments, partial(_reconstructed, names)),
        GoldenRun("raw targets", partial(_arguments, norm_pix_loss=False), _raw_targets),
    )
    return GoldenCase(folder, runs, **options)


ALL_GRADIENTS = PRETRAINING_GRADIENTS | PATCH_GRADIENT
GOLDENS = (
    _finetuned("finetune_mean_pool"),
    _finetuned("finetune_cls_norm"),
    _finetuned("finetune_no_qkv_bias"),
    _finetuned("finetune_layer_scale"),
    _finetuned("finetune_learnable_pos"),
    _finetuned("finetune_low_variance", committed=True),
    _finetuned("finetune_fp16_module", committed=True),
    _finetuned("finetune_frames8"),
    _finetuned("finetune_frames32"),
    _finetuned("finetune_tubelet4_rect", committed=True),
    _pretrained("pretrain_tube90"),
    _pretrained("pretrain_tube90_batch2", ALL_GRADIENTS),
    _pretrained("pretrain_random75", ALL_GRADIENTS),
    _pretrained("pretrain_frames8", ALL_GRADIENTS, committed=True),
    _pretrained("pretrain_layer_scale", ALL_GRADIENTS),
    _pretrained("pretrain_tubelet1_patch8", ALL_GRADIENTS),
    _pretrained("pretrain_tubelet4"),
)


def _normalized(values: tuple[int, int, int]) -> tuple[float, float, float]:
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
    return tuple((value / 255 - mean[i]) / deviation[i] for i, value in enumerate(values))


SPEC = FamilySpec(
    family=VIDEOMAE,
    tiny=TINY,
    size=SIZE,
    models=(MODEL, PRETRAINING, CLASSIFIER),
    processor=ProcessorSpec(
        arguments={"crop_size": {"height": 32, "width": 24}, "num_frames": None},
        output="pixel_values",
        frame_shape=(3, 32, 24),
        normalized=_normalized,
    ),
    goldens=GOLDENS,
    later_goldens={"tube_masks": "it holds masks and no model; tests/test_videomae.py draws them"},
    sharpened={"videomae.*.query.weight": 2.0, "decoder.*.query.weight": 4.0, "classifier.weight": 1000.0},
    samples={"image_size": (32, [32, 24], (32, 24)), "patch_size": (8, [8, 8], (8, 8))},
    many_frames=VideoSize(640, 8, 8),
)
