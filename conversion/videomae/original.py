"""MCG-NJU/VideoMAE at 14ef8d85 beside our model. The checkout needs timm to be installed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vidformers.conversion.core import ConversionError
from vidformers.conversion.load import FoundPart
from vidformers.conversion.originals import importable


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
    size = (1, time * config.tubelet_size, config.num_channels, rows * height, columns * width)
    call = {"pixel_values": torch.randn(size, generator=torch.Generator().manual_seed(0))}
    if architecture == "VideoMAEForPreTraining":
        order = torch.randperm(rows * columns, generator=torch.Generator().manual_seed(1))
        call["bool_masked_pos"] = (order >= rows * columns // 2).repeat(1, time)  # (1, N)
    return call


@torch.no_grad()
def original_stages(
    repository: Path, config: Any, found: Mapping[str, FoundPart], calls: Mapping[str, Mapping[str, Any]]
) -> Stages:
    """What the original code gives for the call of `original_calls`, on the state dict of the file.

    Of a classifier whose head is new, the hidden states alone.
    """
    ((name, part),) = found.items()
    call = calls["video"]
    video = call["pixel_values"].transpose(1, 2)  # (B, C, T, H, W)
    state = {source: part.read(source).float() for source in part.names}
    with importable(repository, modules=("modeling_finetune", "modeling_pretrain")):
        if name == "pre-training model":
            return _reconstruct(config, state, video, call["bool_masked_pos"])
        if name == "classifier":
            return _classify(config, state, video)
        if name.startswith("pre-trained"):
            encoder = {source: tensor for source, tensor in state.items() if source.startswith("encoder.")}
            state = {source.removeprefix("encoder."): tensor for source, tensor in encoder.items()}
        return _encode(config, state, video, is_headless=name.endswith("encoder"))


def _reconstruct(config: Any, state: Stages, video: torch.Tensor, mask: torch.Tensor) -> Stages:
    module = import_module("modeling_pretrain")
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
    model.load_state_dict(state)
    model.eval()
    stages: Stages = {}
    with (
        _recorded(stages, "hidden_states", model.encoder.blocks),
        _recorded(stages, "decoder_hidden_states", model.decoder.blocks),
    ):
        logits = model(video, mask)
    return {**stages, "video.logits": logits}


def _classify(config: Any, state: Stages, video: torch.Tensor) -> Stages:
    model = _build_finetuned(config, config.num_labels)
    model.load_state_dict(state)
    stages: Stages = {}
    with _recorded(stages, "hidden_states", model.eval().blocks):
        logits = model(video)
    return {**stages, "video.logits": logits}


def _encode(config: Any, state: Stages, video: torch.Tensor, is_headless: bool) -> Stages:
    """The encoder of a fine-tuned model, with its output where our model has no head."""
    model = _build_finetuned(config, 1)
    own = model.state_dict()
    of_encoder = {name: state[name] for name in own if not name.startswith(("fc_norm.", "head."))}
    model.load_state_dict({**own, **of_encoder})
    stages: Stages = {}
    with _recorded(stages, "hidden_states", model.eval().blocks):
        model(video)
    if is_headless:
        last = stages[f"video.hidden_states.{config.num_hidden_layers}"]
        stages["video.last_hidden_state"] = model.norm(last)  # The identity where tokens are pooled first.
    return stages


def _build_finetuned(config: Any, num_labels: int) -> nn.Module:
    return import_module("modeling_finetune").VisionTransformer(
        **_arguments(config),
        in_chans=config.num_channels,
        num_classes=num_labels,
        embed_dim=config.hidden_size,
        depth=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        all_frames=config.num_frames,
        use_mean_pooling=config.use_mean_pooling,
    )


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
    }


@contextmanager
def _recorded(stages: Stages, name: str, blocks: nn.ModuleList) -> Iterator[None]:
    """Keep what goes into the first block and what comes out of every one."""

    def keep(index: int, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        if index == 0:
            stages[f"video.{name}.0"] = inputs[0]
        stages[f"video.{name}.{index + 1}"] = output

    hooks = [block.register_forward_hook(partial(keep, index)) for index, block in enumerate(blocks)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
