"""PE Video for the shared tests."""

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
    Tower,
    VideoSize,
)
from tests.pe_core.spec import FIXED
from vidformers.models.pe_video.record import FAMILY as PE_VIDEO
from vidformers.video import uniform_indices


# Widths, depths and head counts all differ, so that one in the place of another shows.
VISION = {
    "image_size": 16,
    "patch_size": 4,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 56,
    "projection_dim": 20,
    "initializer_range": 0.12,
}
ENCODER = {
    "vision_config": VISION,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "initializer_range": 0.1,
}
TEXT = {
    "vocab_size": 50,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "local_attention": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    **{f"{name}_token_id": number for number, name in enumerate(("pad", "bos", "cls", "eos", "sep"))},
}
SIZE = VideoSize(4, 16, 16)
LENGTH = 7


def _tokens_of_a_frame(config: Any, size: VideoSize) -> int:
    return 1 + (size.height // config.patch_size) * (size.width // config.patch_size)


def _tokens_of_a_video(config: Any, size: VideoSize) -> int:
    return 1 + size.frames


def _frames(config: Any, size: VideoSize) -> int:
    return size.frames


def _video(config: Any, batch: int, size: VideoSize, seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {"pixel_values_videos": torch.randn(batch, size.frames, 3, *size[1:], generator=generator)}


def _both(config: Any, batch: int, size: VideoSize, seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(5, TEXT["vocab_size"], (batch, LENGTH), generator=generator)
    return {**_video(config, batch, size, seed), "input_ids": input_ids}


def _padded_video(config: Any, batch: int, size: VideoSize) -> dict[str, Any]:
    """Padding at the end of the first video, at the beginning and inside of the others."""
    frames = torch.arange(size.frames)
    return {"padding_mask_videos": torch.stack([(frames + 2 * video) % size.frames != 1 for video in range(batch)])}


def _padded_text(config: Any, batch: int, size: VideoSize) -> dict[str, Any]:
    return {"attention_mask": (torch.arange(LENGTH) < 3 + torch.arange(batch)[:, None]).long()}


def _slope(name: str, output: Any) -> torch.Tensor:
    """A loss that every channel of an output counts in."""
    value = getattr(output, name)
    return (value * torch.linspace(-1, 1, value.shape[-1])).mean()


TEMPORAL = Tower("", "num_hidden_layers", "hidden_size", "num_attention_heads", _tokens_of_a_video)
FRAMES = Tower(
    "",
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    _tokens_of_a_frame,
    "frame_",
    config="vision_config",
    rows=_frames,
)
TEXT_TOWER = Tower(
    "text_outputs",
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    lambda config, size: LENGTH,
    config="text_config",
)

OFF_SIZES = tuple(OffSize(VideoSize(*size)) for size in ((1, 16, 16), (7, 24, 24), (3, 8, 8), (4, 12, 20))) + (
    OffSize(VideoSize(2, 18, 23), kept=VideoSize(2, 16, 20)),
)
EXAMPLE, OTHER = (2, VideoSize(5, 16, 16)), (3, VideoSize(7, 16, 16))
NEEDS_TIMM = "transformers' class needs timm; tests/pe_video/test_modeling_pe_video.py puts our frame tower into it"


def _dynamic_video(**more: Any) -> dict[str, Any]:
    batch, frames = torch.export.Dim("batch", max=64), torch.export.Dim("frames", max=64)
    return {"pixel_values_videos": {0: batch, 1: frames}, **more}


SHALLOW = {"num_hidden_layers": 1, "vision_config": {**VISION, "num_hidden_layers": 1}}
FRAME_TOWER = (
    Called(
        "*embedder.vision_model*",
        "one frame of each video is padding",
        lambda config, size: [size.frames - 1],
        call="padding",
    ),
    Called("*embedder.vision_model*", "the frame tower sees frames one by one", lambda config, size: [size.frames]),
)

ENCODER_MODEL = ModelSpec(
    name="PeVideoEncoder",
    called=FRAME_TOWER,
    shallow=SHALLOW,
    config_class="PeVideoEncoderConfig",
    config=ENCODER,
    inputs=_video,
    output="pooler_output",
    output_shape=lambda config, batch, size: (batch, config.hidden_size),
    towers=(TEMPORAL, FRAMES),
    loss=partial(_slope, "pooler_output"),
    calls={"padding": _padded_video},
    stock=NEEDS_TIMM,
    export=Export(_dynamic_video, EXAMPLE, OTHER),
    off_sizes=OFF_SIZES,
)
MODEL = ModelSpec(
    name="PeVideoModel",
    called=FRAME_TOWER,
    shallow={"video_config": {**ENCODER, **SHALLOW}, "text_config": {**TEXT, "num_hidden_layers": 1}},
    inputs=_both,
    output="logits_video_text",
    output_shape=lambda config, batch, size: (batch, batch),
    similarities={
        "logits_video_text": Similarity(
            "video_embeds", "text_video_embeds", lambda model: model.text_video_logit_scale.item()
        )
    },
    towers=(
        replace(TEMPORAL, path="video_outputs", config="video_config"),
        replace(FRAMES, path="video_outputs", config="video_config.vision_config"),
        TEXT_TOWER,
    ),
    training_inputs=lambda config, batch: {"return_loss": True},
    calls={"padding": lambda *call: {**_padded_video(*call), **_padded_text(*call)}},
    stock=NEEDS_TIMM,
    export=Export(lambda: _dynamic_video(input_ids={0: torch.export.Dim("batch", max=64)}), EXAMPLE, OTHER),
    off_sizes=OFF_SIZES,
    idle={"text_model.final_norm.weight": "the original takes text embeddings from before this norm"},
)


def _arguments(folder: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """What `load_original` needs beside the directory: the original's tiny frame tower has a name of its own."""
    heads = values["pe_encoder_vision_cfg"]["heads"]
    return {"path": folder, "video_config": {"vision_config": {"num_attention_heads": heads}}}


def _encoded(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A video without text; with a mask of nothing but real frames too, where the case has none."""
    output = model(**inputs, output_hidden_states=True)
    video = output.video_outputs
    found = {
        **{f"hidden_states_{index}": state for index, state in enumerate(video.hidden_states)},
        "last_hidden_state": video.last_hidden_state,
        "pooler_output": video.pooler_output,
        "pe_features": video.pe_features,
        "visual_embeds": output.video_embeds,
    }
    if "padding_mask_videos" not in inputs:
        mask = torch.ones(inputs["pixel_values_videos"].shape[:2], dtype=torch.bool)
        found["pooler_output_all_true_mask"] = model(**inputs, padding_mask_videos=mask).video_outputs.pooler_output
    return found


def _compared(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Video and text, compared as they are, and with the scale and the bias of the case."""
    call = {name: value for name, value in inputs.items() if not name.startswith("derived")}
    similarity = model(**call).logits_video_text
    for name in ("scale", "bias"):
        getattr(model, f"text_video_logit_{name}").copy_(inputs[f"derived_logit_{name}"])
    output = model(**call, return_loss=True)
    model.text_video_logit_scale.fill_(1.0)
    model.text_video_logit_bias.fill_(0.0)
    return {
        "similarity": similarity,
        "derived_logits_video_text": output.logits_video_text,
        "derived_sigmoid_loss": output.loss[None],
        "visual_embeds": output.video_embeds,
        "visual_text_embeds": output.text_video_embeds,
        "text_last_hidden_state": output.text_outputs.last_hidden_state,
        "text_pooler_output": output.text_outputs.pooler_output,
        "video_last_hidden_state": output.video_outputs.last_hidden_state,
        "video_pooler_output": output.video_outputs.pooler_output,
        "pe_features": output.video_outputs.pe_features,
    }


def _frames_that_count(inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return inputs["padding_mask_videos"]


def _tokens_that_count(inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return torch.nn.functional.pad(inputs["padding_mask_videos"], (1, 0), value=True)


def _words_that_count(inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return inputs["attention_mask"].bool()


def _text_tensors(num_layers: int) -> tuple[str, ...]:
    """Names of the original tensors of the text tower and its head, each part's from its own beginning."""
    layer = ("attn_norm", "attn.Wqkv", "attn.Wo", "mlp_norm", "mlp.Wi", "mlp.Wo")
    layers = [f"layers.{index}.{name}.weight" for index in range(num_layers) for name in layer]
    layers.remove("layers.0.attn_norm.weight")
    embeddings = ("embeddings.tok_embeddings.weight", "embeddings.norm.weight", "final_norm.weight")
    return (*embeddings, *layers, "layer_norm.weight", "layer_norm.bias", "proj.weight")


UNREAD = dict.fromkeys(
    ("text_only_audio_visual_text_embeds", "visual_plus_text_embeds"),
    "from heads for audio and video at once, or for video and text at once",
)
OTHER_NORM = dict.fromkeys(
    [f"{name}_if_final_norm_applied" for name in ("text_last_hidden_state", "visual_text_embeds", "similarity")],
    "what the original makes of transformers 5, whose last hidden state has been through the norm",
)
NO_NORM = {"final_norm.weight": "the text embedding is taken from before this norm"}


def _video_case(folder: str, *, padded: bool) -> GoldenCase:
    """Video alone, of whose padding nothing counts."""
    counted = {}
    if padded:
        counted = dict.fromkeys(("last_hidden_state", "pe_features"), _frames_that_count)
        counted |= {f"hidden_states_{index}": _tokens_that_count for index in range(4)}
    blind = dict.fromkeys(_text_tensors(3), "the call has no text")
    return GoldenCase(folder, (GoldenRun("", _arguments, _encoded),), counted=counted, blind=blind)


def _case(folder: str, *, padded: bool = True, **options: Any) -> GoldenCase:
    """Video and text, of whose padding nothing counts."""
    counted = {"text_last_hidden_state": _words_that_count}
    if padded:
        counted |= dict.fromkeys(("video_last_hidden_state", "pe_features"), _frames_that_count)
    options = {"unread": UNREAD, "blind": NO_NORM, **options}
    return GoldenCase(folder, (GoldenRun("", _arguments, _compared),), counted=counted, **options)


GOLDENS = (
    _video_case("b1_peav_video_fixed16", padded=False),
    _video_case("b2_peav_video_one_frame", padded=False),
    _video_case("c1_peav_video_padded", padded=True),
    _video_case("c2_peav_video_left_and_holes", padded=True),
    _case("d1_peav_video_text", committed=True),
    _case("d2_peav_video_text_last_layer_none", padded=False, blind={}),
    _case("d3_peav_video_text_nth_equals_depth", unread={**UNREAD, **OTHER_NORM}),
)

WHOLE_BATCH = "every output compares all videos with all texts; test_modeling_pe_video.py has the towers' embeddings"

SPEC = FamilySpec(
    family=PE_VIDEO,
    tiny={"video_config": ENCODER, "text_config": TEXT},
    size=SIZE,
    models=(ENCODER_MODEL, MODEL),
    processor=ProcessorSpec(
        arguments={"size": {"height": 16, "width": 16}},
        output="pixel_values_videos",
        frame_shape=(3, 16, 16),
        normalized=lambda values: tuple(value / 127.5 - 1 for value in values),
        indices=partial(uniform_indices, endpoint=True),
    ),
    own_layers={
        "PeVideoRMSNorm": "it computes in float32 whatever the model's type",
        "PeVideoMaskedGroupNorm": "padding doesn't count",
        "UnusedLayerNorm": "it returns what it gets; transformers' tower norms what the original doesn't",
    },
    goldens=GOLDENS,
    sharpened={"*q_norm.weight": 3.0},
    fixed={"text_video_logit_scale": 1.0, "text_video_logit_bias": 0.0, **FIXED},
    many_frames=VideoSize(320, 8, 8),
    skips={
        "test_batch_is_invariant[PeVideoModel]": WHOLE_BATCH,
        "test_empty_model_can_be_filled[PeVideoModel]": "transformers' text tower has rotary frequencies in "
        "buffers, which no state dict holds",
        "test_advertised_types_construct[PeVideoEncoder]": "`num_key_value_heads` is a number at once, as in "
        "transformers, where `None` is given; tests/pe_video/test_modeling_pe_video.py has it",
    },
)
