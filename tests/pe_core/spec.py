"""PE core for the shared tests."""

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
from vidformers import PeVisionModel
from vidformers.models.pe_core.record import FAMILY as PE_CORE
from vidformers.video import uniform_indices


# Widths, depths and head counts all differ, so that one in the place of another shows. One tower has a class token
# and scaled branches, the other neither.
VISION = {
    "image_size": 16,
    "patch_size": 4,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 56,
    "projection_dim": 20,
    "layer_scale_init_value": 0.5,
    "initializer_range": 0.2,
}
TEXT = {
    "vocab_size": 50,
    "max_position_embeddings": 9,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "projection_dim": 20,
    "initializer_range": 0.2,
}
CORE = {
    "vision_config": {
        "architecture": "vit_pe_core_gigantic_patch14_448",
        **VISION,
        "hidden_size": 48,
        "num_attention_heads": 3,
        "layer_scale_init_value": 0.0,
    },
    "text_config": TEXT,
}
LENGTH = 7


def _tokens(config: Any, size: VideoSize) -> int:
    return config.use_cls_token + (size.height // config.patch_size) * (size.width // config.patch_size)


def _images(config: Any, batch: int, size: VideoSize, seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {"pixel_values": torch.randn(batch, 3, *size[1:], generator=generator)}


def _text(config: Any, batch: int, size: VideoSize, seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(1, TEXT["vocab_size"] - 1, (batch, LENGTH), generator=generator)
    input_ids[:, -2] = TEXT["vocab_size"] - 1  # the end, with padding after it
    return {"input_ids": input_ids}


def _both(config: Any, batch: int, size: VideoSize, seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    video = torch.randn(batch, size.frames, 3, *size[1:], generator=generator)
    return {**_text(config, batch, size, seed), "pixel_values_videos": video}


def _padded(config: Any, batch: int, size: VideoSize) -> dict[str, Any]:
    frames = torch.arange(size.frames)
    return {"padding_mask_videos": torch.stack([(frames + 2 * video) % size.frames != 1 for video in range(batch)])}


def _all_but_one_frame(config: Any, size: VideoSize) -> list[int]:
    return [size.frames - 1]


def _slope(name: str, output: Any) -> torch.Tensor:
    """A loss that every channel of an output counts in."""
    value = getattr(output, name)
    return (value * torch.linspace(-1, 1, value.shape[-1])).mean()


TOWER = Tower("", "num_hidden_layers", "hidden_size", "num_attention_heads", _tokens)
TEXT_TOWER = Tower("", "num_hidden_layers", "hidden_size", "num_attention_heads", lambda config, size: LENGTH)
OFF_SIZES = tuple(OffSize(VideoSize(*size)) for size in ((1, 16, 16), (2, 24, 24), (3, 8, 8), (4, 12, 20))) + (
    OffSize(VideoSize(2, 18, 23), kept=VideoSize(2, 16, 20)),
)
EXAMPLE, OTHER = (2, VideoSize(5, 16, 16)), (3, VideoSize(7, 16, 16))
NEEDS_TIMM = (
    "transformers' class needs timm; tests/pe_core/test_modeling_pe_core.py compares with it where it is installed"
)
NO_TIME = {"time": "images have one frame"}


def _dynamic(**axes: dict[int, str]) -> dict[str, Any]:
    """Axes that may vary, by name."""
    named: dict[str, Any] = {}
    return {
        name: {axis: named.setdefault(label, torch.export.Dim(label, max=64)) for axis, label in varying.items()}
        for name, varying in axes.items()
    }


VISION_MODEL = ModelSpec(
    name="PeVisionModel",
    shallow={"num_hidden_layers": 1},
    config_class="PeVisionConfig",
    config=VISION,
    inputs=_images,
    output="image_embeds",
    output_shape=lambda config, batch, size: (batch, config.projection_dim),
    towers=(TOWER,),
    loss=partial(_slope, "image_embeds"),
    stock=NEEDS_TIMM,
    export=Export(lambda: _dynamic(pixel_values={0: "batch"}), EXAMPLE, OTHER),
    off_sizes=OFF_SIZES,
    orderless=NO_TIME,
)
TEXT_MODEL = ModelSpec(
    name="PeCoreTextModel",
    shallow={"num_hidden_layers": 1},
    config_class="PeCoreTextConfig",
    config=TEXT,
    inputs=_text,
    output="text_embeds",
    output_shape=lambda config, batch, size: (batch, config.projection_dim),
    towers=(TEXT_TOWER,),
    loss=partial(_slope, "text_embeds"),
    stock="transformers has no such class",
    export=Export(lambda: _dynamic(input_ids={0: "batch"}), EXAMPLE, OTHER),
    orderless=dict.fromkeys(("time", "height", "width"), "text has none of the axes of videos"),
)
CORE_MODEL = ModelSpec(
    name="PeCoreModel",
    called=(
        Called("vision_model*", "one frame of each video is padding", _all_but_one_frame, call="padding"),
        Called("vision_model*", "the vision tower sees frames one by one", lambda config, size: [size.frames]),
    ),
    shallow={name: {**tower, "num_hidden_layers": 1} for name, tower in CORE.items()},
    config_class="PeCoreConfig",
    config=CORE,
    inputs=_both,
    output="logits_per_video",
    output_shape=lambda config, batch, size: (batch, batch),
    similarities={
        name: Similarity("video_embeds", "text_embeds", lambda model: model.logit_scale.exp().item())
        for name in ("logits_per_video", "logits_per_text")
    },
    towers=(
        Tower(
            "vision_model_output",
            "num_hidden_layers",
            "hidden_size",
            "num_attention_heads",
            _tokens,
            config="vision_config",
            rows=lambda config, size: size.frames,
        ),
        Tower(
            "text_model_output",
            "num_hidden_layers",
            "hidden_size",
            "num_attention_heads",
            lambda config, size: LENGTH,
            config="text_config",
        ),
    ),
    training_inputs=lambda config, batch: {"return_loss": True},
    calls={"padding": _padded, "normalized frames": lambda *call: {"normalize_frames": True}},
    stock="transformers has no such class",
    export=Export(
        lambda: _dynamic(input_ids={0: "batch"}, pixel_values_videos={0: "batch", 1: "frames"}), EXAMPLE, OTHER
    ),
    off_sizes=OFF_SIZES,
    orderless={"time": "a video is the mean of its frames"},
)
MODELS = (VISION_MODEL, TEXT_MODEL, CORE_MODEL)


def _of_tower(folder: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    heads = values["vision_cfg"]["heads"]
    return {"path": folder / "checkpoint.pt", "model_class": PeVisionModel, "num_attention_heads": heads}


def _of_both(folder: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    configs = {"vision_config": "vision_cfg", "text_config": "text_cfg"}
    heads = {ours: {"num_attention_heads": values[theirs]["heads"]} for ours, theirs in configs.items()}
    return {"path": folder / "checkpoint.pt", **heads}


def _encoded(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    outputs = {}
    for name, image in inputs.items():
        index = name.removeprefix("image_")
        found = model(image, output_hidden_states=True)
        outputs[f"features_{index}"] = found.hidden_states[-1]
        if found.image_embeds is None:
            outputs[f"embedding_{index}"] = found.last_hidden_state
        else:
            outputs[f"features_layer0_{index}"] = found.hidden_states[1]
            outputs[f"features_norm_{index}"] = found.last_hidden_state
            outputs[f"pooled_{index}"] = found.pooler_output
            outputs[f"embedding_{index}"] = found.image_embeds
    return outputs


def _compared(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    video, text = inputs["video"], inputs["text"]
    output = model(text, pixel_values_videos=video)
    return {
        "frames": model.get_image_features(video.flatten(0, 1)).pooler_output.unflatten(0, video.shape[:2]),
        "video": model.get_video_features(video).pooler_output,
        "video_normalized_frames": model.get_video_features(video, normalize_frames=True).pooler_output,
        "text": model.get_text_features(text).pooler_output,
        "text_normalized": output.text_embeds,
        "logit_scale_exp": model.logit_scale.exp().view(1),
        "logits_benchmark": output.logits_per_video,
    }


GOLDENS = (
    GoldenCase("a1_core_vit_native", (GoldenRun("", _of_tower, _encoded),)),
    GoldenCase("a2_core_vit_resized", (GoldenRun("", _of_tower, _encoded),)),
    GoldenCase("a3_core_vit_nocls_G", (GoldenRun("", _of_tower, _encoded),)),
    GoldenCase("a4_core_vit_layerscale_nopool", (GoldenRun("", _of_tower, _encoded),), committed=True),
    GoldenCase("e1_core_clip_video", (GoldenRun("", _of_both, _compared),), committed=True),
)
FIXED = {"*head.bias": 0.0}  # the original's projection has no bias

SKIPS = {
    "test_batch_is_invariant[PeCoreModel]": "every output compares all videos with all texts; "
    "tests/pe_core/test_modeling_pe_core.py has the towers' embeddings",
    "test_advertised_types_construct[PeVisionModel]": "`None` stands for the architecture's size, which the "
    "configuration has at once; tests/pe_core/test_modeling_pe_core.py has it",
    "test_advertised_types_construct[PeCoreModel]": "its fields are the towers' configurations",
}

SPEC = FamilySpec(
    family=PE_CORE,
    tiny=CORE,
    size=VideoSize(3, 16, 16),
    models=MODELS,
    processor=ProcessorSpec(
        arguments={"size": {"height": 16, "width": 16}},
        output="pixel_values_videos",
        frame_shape=(3, 16, 16),
        normalized=lambda values: tuple(value / 127.5 - 1 for value in values),
        indices=partial(uniform_indices, endpoint=True),
        feeds=replace(
            CORE_MODEL,
            output="video_embeds",
            output_shape=lambda config, batch, size: (batch, config.vision_config.projection_dim),
        ),
    ),
    goldens=GOLDENS,
    goldens_folder="pe_video",
    fixed=FIXED,
    many_frames=VideoSize(320, 8, 8),
    skips=SKIPS,
)
