"""VideoPrism for the shared tests."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tests.harness.family_spec import (
    Called,
    Export,
    FamilySpec,
    GoldenCase,
    GoldenRun,
    ModelSpec,
    OffSize,
    ProcessorSpec,
    Similarity,
    Stock,
    Tower,
    VideoSize,
)
from tests.harness.tolerances import Tolerance
from vidformers.models.videoprism.record import FAMILY as VIDEOPRISM


# Widths, depths and head counts all differ, so that one in the place of another shows. The cap is low enough to bend
# the scores of these weights. Texts have no ReLU here, whose slope jumps where half precision changes a sign.
VISION = {
    "image_size": 16,
    "num_frames": 4,
    "tubelet_size": [1, 4, 4],
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "num_spatial_layers": 3,
    "num_temporal_layers": 2,
    "num_auxiliary_layers": 1,
    "attn_logit_softcapping": 20.0,
}
TEXT = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "hidden_act": "gelu",
    "attn_logit_softcapping": 20.0,
}
SIZE = VideoSize(4, 16, 16)
LENGTH = 7


def _patches(config: Any, size: VideoSize) -> int:
    return (size.height // config.tubelet_size[1]) * (size.width // config.tubelet_size[2])


def _frames(config: Any, size: VideoSize) -> int:
    return size.frames


def _all_tokens(config: Any, size: VideoSize) -> int:
    return size.frames * _patches(config, size)


def _video(config: Any, batch: int, size: VideoSize, seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    inputs = {"pixel_values_videos": 3 * torch.rand(batch, size.frames, 3, *size[1:], generator=generator)}
    return inputs if size == SIZE else {**inputs, "interpolate_pos_encoding": True}


def _text(config: Any, batch: int, size: VideoSize, seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {"input_ids": torch.randint(1, TEXT["vocab_size"], (batch, LENGTH), generator=generator)}


def _both(config: Any, batch: int, size: VideoSize, seed: int) -> dict[str, Any]:
    return {**_video(config, batch, size, seed), **_text(config, batch, size, seed)}


def _padded_video(config: Any, batch: int, size: VideoSize) -> dict[str, Any]:
    return {"padding_mask_videos": torch.arange(size.frames) < torch.arange(batch)[:, None] + 1}


def _padded_text(config: Any, batch: int, size: VideoSize) -> dict[str, Any]:
    return {"attention_mask": (torch.arange(LENGTH) < 3 * torch.arange(batch)[:, None]).long()}


def _labels(config: Any, batch: int) -> dict[str, Any]:
    return {"labels": torch.arange(batch) % config.num_labels}


def _square(name: str, output: Any) -> torch.Tensor:
    """A loss that has a slope even where outputs have length one."""
    value = getattr(output, name)
    return (value * torch.linspace(-1, 1, value.shape[-1])).mean()


SPATIAL = Tower("", "num_spatial_layers", "hidden_size", "num_attention_heads", _patches, "spatial_", rows=_frames)
TEMPORAL = Tower("", "num_temporal_layers", "hidden_size", "num_attention_heads", _frames, "temporal_", rows=_patches)
AUXILIARY = Tower("", "num_auxiliary_layers", "hidden_size", "num_attention_heads", _all_tokens, "auxiliary_")
TEXT_TOWER = Tower("", "num_hidden_layers", "hidden_size", "num_attention_heads", lambda config, size: LENGTH + 1)


OFF_SIZES = tuple(
    OffSize(VideoSize(*size)) for size in ((1, 16, 16), (7, 24, 24), (3, 8, 8), (4, 12, 20), (16, 16, 4))
)
EXAMPLE, OTHER = (2, VideoSize(5, 16, 16)), (3, VideoSize(7, 16, 16))


def _dynamic_video(**more: Any) -> dict[str, Any]:
    batch, frames = torch.export.Dim("batch", max=64), torch.export.Dim("frames", max=64)
    return {"pixel_values_videos": {0: batch, 1: frames}, "interpolate_pos_encoding": None, **more}


def _dynamic_text() -> dict[str, Any]:
    return {"input_ids": {0: torch.export.Dim("batch", max=64)}}


WRONG_TEXT = "the text towers of transformers have another position table; tests/test_videoprism.py compares the rest"
NO_QUERY_AXIS = "transformers keeps the axis of the pooler's only query"
SHALLOW = {"num_spatial_layers": 1, "num_temporal_layers": 1}


def _of_frames(pattern: str) -> Called:
    return Called(pattern, "frames are sequences of their own", lambda config, size: [size.frames])


def _of_patches(pattern: str) -> Called:
    def rows(config: Any, size: VideoSize) -> list[int]:
        return [_patches(getattr(config, "vision_config", config), size)]

    return Called(pattern, "in time, every patch is a sequence of its own", rows)


CALLED = (
    *map(_of_frames, ("*spatial_embeddings.dropout", "*spatial_layers.*", "*layernorm1", "*temporal_embeddings")),
    *map(_of_patches, ("*temporal_embeddings.dropout", "*temporal_layers.*", "*layernorm2")),
)

VISION_MODEL = ModelSpec(
    name="VideoPrismVisionModel",
    called=CALLED,
    shallow=SHALLOW,
    config_class="VideoPrismVisionConfig",
    config=VISION,
    inputs=_video,
    output="last_hidden_state",
    output_shape=lambda config, batch, size: (batch, _all_tokens(config, size), config.hidden_size),
    towers=(SPATIAL, TEMPORAL),
    loss=partial(_square, "last_hidden_state"),
    calls={"padding": _padded_video},
    stock=Stock("VideoPrismVisionConfig", "VideoPrismVisionModel"),
    export=Export(_dynamic_video, EXAMPLE, OTHER),
    off_sizes=OFF_SIZES,
)
VIDEO_MODEL = ModelSpec(
    name="VideoPrismVideoModel",
    called=(
        *CALLED,
        Called("head*", "it pools frames as well as videos", lambda config, size: [size.frames, 1], call="frames"),
    ),
    shallow=SHALLOW,
    config_class="VideoPrismVisionConfig",
    config=VISION,
    inputs=_video,
    output="pooler_output",
    output_shape=lambda config, batch, size: (batch, config.hidden_size),
    towers=(SPATIAL, TEMPORAL, AUXILIARY),
    loss=partial(_square, "pooler_output"),
    calls={"padding": _padded_video, "frames": lambda config, batch, size: {"output_frame_embeddings": True}},
    stock=Stock("VideoPrismVisionConfig", "VideoPrismVideoModel", reshaped={"pooler_output": NO_QUERY_AXIS}),
    export=Export(_dynamic_video, EXAMPLE, OTHER),
    off_sizes=OFF_SIZES,
)
CLASSIFIER = ModelSpec(
    name="VideoPrismForVideoClassification",
    called=CALLED,
    shallow=SHALLOW,
    config_class="VideoPrismVisionConfig",
    config={**VISION, "num_labels": 5},
    inputs=_video,
    output="logits",
    output_shape=lambda config, batch, size: (batch, config.num_labels),
    towers=(SPATIAL, TEMPORAL),
    training_inputs=_labels,
    calls={"padding": _padded_video},
    stock=Stock("VideoPrismVisionConfig", "VideoPrismForVideoClassification", reshaped={"logits": NO_QUERY_AXIS}),
    export=Export(_dynamic_video, EXAMPLE, OTHER),
    off_sizes=OFF_SIZES,
)
TEXT_MODEL = ModelSpec(
    name="VideoPrismTextModel",
    shallow={"num_hidden_layers": 1},
    config_class="VideoPrismTextConfig",
    config=TEXT,
    inputs=_text,
    output="pooler_output",
    output_shape=lambda config, batch, size: (batch, config.hidden_size),
    towers=(TEXT_TOWER,),
    loss=partial(_square, "pooler_output"),
    calls={"padding": _padded_text},
    stock=WRONG_TEXT,
    export=Export(_dynamic_text, EXAMPLE, OTHER),
)
CLIP_MODEL = ModelSpec(
    name="VideoPrismClipModel",
    called=CALLED,
    shallow={"vision_config": {**VISION, **SHALLOW}, "text_config": {**TEXT, "num_hidden_layers": 1}},
    inputs=_both,
    output="similarity_logits_per_video",
    output_shape=lambda config, batch, size: (batch, batch),
    similarities={
        "similarity_logits_per_video": Similarity("video_embeds", "text_embeds"),
        "similarity_logits_per_text": Similarity("text_embeds", "video_embeds"),
    },
    towers=(
        replace(AUXILIARY, path="video_model_output", config="vision_config"),
        replace(TEXT_TOWER, path="text_model_output", config="text_config"),
    ),
    training_inputs=lambda config, batch: {"return_loss": True},
    calls={
        "padding": lambda *call: {**_padded_video(*call), **_padded_text(*call)},
        "temperature": lambda *call: {"temperature": 0.1},
    },
    stock=WRONG_TEXT,
    export=Export(lambda: _dynamic_video(input_ids={0: torch.export.Dim("batch", max=64)}), EXAMPLE, OTHER),
    off_sizes=OFF_SIZES,
)


def _arguments(folder: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """What `load_original` needs beside the file: what no shape tells."""
    encoder = values.get("encoder_params", values)
    _, rows, columns = encoder["pos_emb_shape"]
    fields: dict[str, Any] = {"path": folder / "checkpoint.npz"}
    if rows != columns:
        fields["image_size"] = [rows * encoder["patch_size"], columns * encoder["patch_size"]]
    if folder.name == "clip_no_normalize":
        fields |= {name: {"apply_l2norm": False} for name in ("vision_config", "text_config")}
    return fields


def _call(model: Any, inputs: Mapping[str, torch.Tensor], **options: Any) -> Any:
    """Run a model on the original's inputs: videos (B, T, H, W, C), and paddings with 1 where there is nothing."""
    if "inputs" in inputs:
        options["pixel_values_videos"] = inputs["inputs"].permute(0, 1, 4, 2, 3)
        options["interpolate_pos_encoding"] = True
    if "frame_paddings" in inputs:
        options["padding_mask_videos"] = 1 - inputs["frame_paddings"]
    if "text_token_ids" in inputs:
        options["input_ids"], options["attention_mask"] = inputs["text_token_ids"].long(), 1 - inputs["text_paddings"]
    return model(**options)


def _encoded(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    output = _call(model, inputs)
    return {"embeddings": output.last_hidden_state, "spatial_features": output.spatial_features}


def _classified(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    output = _call(model, inputs)
    names = ("logits", "spatial_features", "spatiotemporal_features")
    return {"global_embeddings": output.pooler_output, **{name: getattr(output, name) for name in names}}


def _compared(model: Any, inputs: Mapping[str, torch.Tensor], features: bool = True) -> dict[str, torch.Tensor]:
    output = _call(model, inputs, output_frame_embeddings=True)
    video = output.video_model_output
    names = ("frame_embeddings", *(("spatial_features", "spatiotemporal_features") if features else ()))
    return {
        "text_embeddings": output.text_embeds,
        "text_features": output.text_model_output.last_hidden_state,
        "video_embeddings": output.video_embeds,
        **{name: getattr(video, name) for name in names},
    }


def _read(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    output = _call(model, inputs)
    return {"text_embeddings": output.text_embeds, "text_features": output.text_model_output.last_hidden_state}


def _case(
    folder: str, outputs: Any, *stacks: str, blind_text: bool = False, blind: tuple[str, ...] = (), **options: Any
) -> GoldenCase:
    """A case; the biases of the keys in `stacks`, of poolers and, if so said, of the text don't show in it."""
    names = {f"{stack}transformers_stack/x_layers/self_attention/key/b": NO_SHIFT for stack in stacks}
    if not folder.startswith("encoder"):
        names["pooling_attention/key/b"] = "a softmax drops what is the same for every key, and poolers have no cap"
    if blind_text:
        names["unimodal_transformer/x_layers/self_attention/key/b"] = NO_SHIFT
    names |= dict.fromkeys(blind, "the call has no video")
    return GoldenCase(folder, (GoldenRun("", _arguments, outputs),), blind=names, **options)


def _video_tensors() -> tuple[str, ...]:
    """Names of the original tensors of the video tower, each part's from its own beginning."""
    attention = [f"{name}/{part}" for name in ("query", "key", "value", "post") for part in "wb"]
    norm = ["layer_norm/scale", "layer_norm/bias"]
    layers = [f"ffn_layer{index}/linear/{part}" for index in (1, 2) for part in ("kernel", "bias")]
    block = [*norm, *(f"self_attention/{name}" for name in attention), *(f"ff_layer/{name}" for name in norm + layers)]
    stacks = [
        f"{kind}transformers_stack/x_layers"
        for kind in ("spatial_encoder/", "temporal_encoder/", "auxiliary_encoder/")
    ]
    return (
        *(f"{stack}/{name}" for stack in stacks for name in block),
        *(f"{kind}_{name}" for kind in ("spatial", "temporal") for name in ("ln/scale", "ln/bias", "pos_emb/emb_var")),
        *(f"pooling_attention_{name}" for name in norm),
        *(f"pooling_attention/{name}" for name in [*attention, "per_dim_scale/per_dim_scale"]),
        *("pooling_attention_query", "patch_projection/linear/kernel", "patch_projection/linear/bias"),
    )


NO_SHIFT = "a softmax drops what is the same for every key; through the cap it shows by less than the tolerance"
SPATIAL_STACK, TEMPORAL_STACK, AUXILIARY_STACK = "spatial_encoder/", "temporal_encoder/", "auxiliary_encoder/"


STRESS = Tolerance(
    1e-3,
    1.0,
    "scores far beyond the cap make attention all but a choice of one token: the original itself, compiled and not, "
    "deviates by up to 1.7e-4",
)
FAINT = {
    "temporal_encoder/transformers_stack/x_layers/self_attention/key/b": "it shows by the bend of the cap alone, here "
    "at 3.5e-5, which is the tolerance"
}
WITHOUT_FEATURES = partial(_compared, features=False)

GOLDENS = (
    _case("encoder_native", _encoded),
    _case("encoder_interp_up", _encoded),
    _case("encoder_interp_down", _encoded, committed=True, faint=FAINT),
    _case("encoder_frame_paddings", _encoded),
    _case("encoder_patches_nonsquare", _encoded, committed=True),
    _case("encoder_softcap_stress", _encoded, committed=True, tolerance=STRESS),
    _case("clip_native", _compared, AUXILIARY_STACK),
    _case("clip_tokenized", WITHOUT_FEATURES, TEMPORAL_STACK),
    _case("clip_no_normalize", _compared),
    _case("clip_frame_paddings_interp", _compared, committed=True),
    _case("clip_primer_hybrid", _compared, TEMPORAL_STACK, AUXILIARY_STACK, committed=True),
    _case("clip_l2_epsilon", WITHOUT_FEATURES, SPATIAL_STACK, TEMPORAL_STACK, AUXILIARY_STACK, blind_text=True),
    _case("clip_text_only_long", _read, blind=_video_tensors()),
    _case("clip_softcap_stress", _compared, blind_text=True, tolerance=STRESS),
    _case("classifier_native", _classified),
    _case("classifier_frame_paddings", _classified, committed=True),
)

WHOLE_BATCH = "every output compares all videos with all texts; tests/test_videoprism.py has the towers' embeddings"

VISION_CLASSES = tuple(model.name for model in (VISION_MODEL, VIDEO_MODEL, CLASSIFIER))

SPEC = FamilySpec(
    family=VIDEOPRISM,
    tiny={"vision_config": VISION, "text_config": TEXT},
    size=SIZE,
    models=(VISION_MODEL, VIDEO_MODEL, CLASSIFIER, TEXT_MODEL, CLIP_MODEL),
    processor=ProcessorSpec(
        arguments={"size": {"height": 16, "width": 16}, "num_frames": None},
        output="pixel_values_videos",
        frame_shape=(3, 16, 16),
        normalized=lambda values: tuple(value / 255 for value in values),
    ),
    own_layers={
        "OffsetLayerNorm": "files hold the distance of its weight from one",
    },
    goldens=GOLDENS,
    sharpened={"*_layers.*.attention.q_proj.weight": 5.0},
    many_frames=VideoSize(320, 8, 8),
    skips={
        "test_batch_is_invariant[VideoPrismClipModel]": WHOLE_BATCH,
        **{
            f"test_advertised_types_construct[{name}]": "sizes need one number for every axis; see "
            "tests/test_videoprism.py for their types"
            for name in VISION_CLASSES
        },
        "test_order_matters[VideoPrismTextModel]": "text has no height, width or frames",
    },
)
