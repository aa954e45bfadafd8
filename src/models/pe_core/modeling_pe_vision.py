"""The Perception Encoder's vision tower: PE core, PE lang and PE spatial, and the frame tower of PE Video.

Paper: https://arxiv.org/abs/2504.13181. Original code: facebookresearch/perception_models at 3e352cca,
`core/vision_encoder/pe.py` and `rope.py`. Modules have the names of timm's port, which published repositories hold.

Shapes: B images with C channels and H × W pixels; h × w patches; N tokens, the patches and, in most towers, a class
token before them; D channels of a token; E channels of an embedding.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import can_return_tuple

from vidformers.layers.attention import attention
from vidformers.layers.block import Mlp, Records
from vidformers.layers.modules import to_dtype_of
from vidformers.layers.patchify import Grid, cut_to_tubelets
from vidformers.layers.positions import resize_position_grid
from vidformers.layers.rope import RotaryTable, apply_rotary, rotary_table

from ..pretrained import VideoPreTrainedModel
from .configuration_pe_vision import PeVisionConfig


@dataclass
class PeVisionOutput(BaseModelOutputWithPooling):
    """What [`PeVisionModel`] computes.

    Args:
        last_hidden_state: (B, N, D), the tokens after the last block, normalized if `config.use_post_norm` is on; the
            class token first, where there is one.
        pooler_output: (B, D), the pooled tokens, which are projected; `None` in a tower without pooling and head.
        hidden_states: (B, N, D) each: the input of every block and the output of the last one, not normalized.
        attentions: (B, heads, N, N) of every block.
        image_embeds: (B, E), the pooled tokens projected to the space that PE core shares with texts; not of length
            one. `None` in a tower without projection.
        patch_features: (B, h, w, D), the patches of `last_hidden_state` on their grid.
    """

    image_embeds: torch.Tensor | None = None
    patch_features: torch.Tensor | None = None


class PeVisionPatchEmbed(nn.Module):
    """Holds the patch projection under the name that it has on disk."""

    def __init__(self, config: PeVisionConfig):
        super().__init__()
        side = config.patch_size
        self.proj = nn.Conv2d(config.num_channels, config.hidden_size, kernel_size=side, stride=side, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Embed the patches of images (B, C, H, W): (B, h·w, D)."""
        return self.proj(to_dtype_of(self.proj, images)).flatten(2).transpose(1, 2)


class PeAttention(nn.Module):
    """Self-attention; with rotary positions on width and height in the vision tower."""

    is_causal = False

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        *,
        rotary: RotaryTable | None,
        mask: torch.Tensor | None,
        output_attentions: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        query, key, value = self.qkv(hidden_states).unflatten(-1, (3, -1, self.head_dim)).unbind(2)
        if rotary is not None:
            query, key = apply_rotary(query, rotary), apply_rotary(key, rotary)
        attended, probabilities = attention(
            self,
            query.transpose(1, 2),  # (B, heads, N, head_dim)
            key.transpose(1, 2),
            value.transpose(1, 2),
            scaling=self.head_dim**-0.5,
            mask=mask,
            output_attentions=output_attentions,
        )
        return self.proj(attended), probabilities


class PeLayer(GradientCheckpointingLayer):
    """Pre-norm transformer block of both towers, whose branches learned factors may scale channel by channel."""

    def __init__(self, config: PreTrainedConfig, layer_scale_init_value: float = 0.0):
        super().__init__()
        self.layer_scale_init_value = layer_scale_init_value
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attn = PeAttention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = Mlp(config.hidden_size, config.intermediate_size, config.hidden_act)
        self.gamma_1 = self.gamma_2 = None
        if layer_scale_init_value:
            self.gamma_1 = nn.Parameter(torch.ones(config.hidden_size))
            self.gamma_2 = nn.Parameter(torch.ones(config.hidden_size))

    def forward(
        self,
        hidden_states: torch.Tensor,
        *,
        rotary: RotaryTable | None = None,
        mask: torch.Tensor | None = None,
        output_attentions: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        attended, probabilities = self.attn(
            self.norm1(hidden_states), rotary=rotary, mask=mask, output_attentions=output_attentions
        )
        hidden_states = hidden_states + (attended if self.gamma_1 is None else self.gamma_1 * attended)
        transformed = self.mlp(self.norm2(hidden_states))
        return hidden_states + (transformed if self.gamma_2 is None else self.gamma_2 * transformed), probabilities


class PeVisionAttentionPool(nn.Module):
    """Attention of a learned query to the tokens, and an MLP on what it gives: (B, N, D) → (B, D)."""

    is_causal = False

    def __init__(self, config: PeVisionConfig):
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.head_dim = width // config.pooler_num_attention_heads
        self.latent = nn.Parameter(torch.zeros(1, 1, width))
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        # The original gives the pooler's MLP this width whatever the blocks have.
        self.mlp = Mlp(width, 4 * width, config.hidden_act)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        query = self.q(self.latent.expand(tokens.shape[0], -1, -1)).unflatten(-1, (-1, self.head_dim))
        key, value = self.kv(tokens).unflatten(-1, (2, -1, self.head_dim)).unbind(2)  # (B, N, heads, head_dim)
        attended, _ = attention(
            self,
            query.transpose(1, 2),  # (B, heads, 1, head_dim)
            key.transpose(1, 2),
            value.transpose(1, 2),
            scaling=self.head_dim**-0.5,
        )
        pooled = self.proj(attended)  # (B, 1, D)
        return (pooled + self.mlp(self.norm(pooled)))[:, 0]


@torch.no_grad()
def init_tower_tables(module: nn.Module) -> None:
    """Initialize what belongs to no layer of torch, as the original: tokens and positions with deviation 1/√D."""
    if isinstance(module, PeLayer) and module.gamma_1 is not None:
        init.constant_(module.gamma_1, module.layer_scale_init_value)
        init.constant_(module.gamma_2, module.layer_scale_init_value)
    elif isinstance(module, PeVisionAttentionPool):
        init.normal_(module.latent)
    elif isinstance(module, PeVisionModel):
        init.normal_(module.pos_embed, std=module.config.hidden_size**-0.5)
        if module.cls_token is not None:
            init.normal_(module.cls_token, std=module.config.hidden_size**-0.5)


class PeVisionPreTrainedModel(VideoPreTrainedModel):
    """Weight initialization, loading and saving of the vision tower.

    Its flags `output_hidden_states` and `output_attentions` are those of [`VideoPreTrainedModel`].
    """

    config_class = PeVisionConfig
    config: PeVisionConfig
    base_model_prefix = "timm_model"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _no_split_modules = ["PeLayer", "PeVisionAttentionPool", "PeVisionPatchEmbed"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Normals, biases zero, norms one; see [`init_tower_tables`] for the rest."""
        super()._init_weights(module)
        init_tower_tables(module)


class PeVisionModel(PeVisionPreTrainedModel):
    """The vision tower: images to tokens, to a pooled vector and to an embedding, as far as the tower has them.

    It takes images. Of videos, [`~PeVisionModel.get_feature_map`] has the features of every frame by itself, and
    [`~PeVisionModel.embed_videos`] their mean.
    """

    encodes_frames_separately = True

    def __init__(self, config: PeVisionConfig):
        super().__init__(config)
        width, (rows, columns) = config.hidden_size, config.position_grid
        self.patch_embed = PeVisionPatchEmbed(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width)) if config.use_cls_token else None
        self.pos_embed = nn.Parameter(torch.zeros(1, config.use_cls_token + rows * columns, width))
        self.norm_pre = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.blocks = nn.ModuleList(
            PeLayer(config, config.layer_scale_init_value) for _ in range(config.num_hidden_layers)
        )
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps) if config.use_post_norm else nn.Identity()
        self.attn_pool = PeVisionAttentionPool(config) if config.use_attention_pooling else None
        self.head = nn.Linear(width, config.projection_dim) if config.projection_dim else None
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.patch_embed

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> PeVisionOutput:
        r"""Encode images of any size.

        Args:
            pixel_values: (B, C, H, W), values in [-1, 1]. Pixels at the right and at the bottom that fill no patch
                are cut, with a warning.
            output_hidden_states, output_attentions: what to record, as for [`VideoPreTrainedModel`].

        Returns:
            [`PeVisionOutput`].

        Raises:
            ValueError: an input of the wrong shape, or one that holds no patch.
        """
        flags = self._flags(output_hidden_states, output_attentions)
        hidden_states, grid = self._embed(pixel_values)  # (B, N, D)
        rotary = self._rotary(grid, hidden_states.device)
        records = Records(hidden_states, **flags)
        for block in self.blocks:
            hidden_states, probabilities = block(
                hidden_states, rotary=rotary, output_attentions=flags["output_attentions"]
            )
            records.add(hidden_states, probabilities)
        last_hidden_state = self.norm(hidden_states)
        patches = last_hidden_state[:, int(self.config.use_cls_token) :]
        pooled = None  # (B, D)
        if self.attn_pool is not None:
            pooled = self.attn_pool(last_hidden_state)
        elif self.head is not None:
            pooled = patches.mean(1)
        return PeVisionOutput(
            last_hidden_state=last_hidden_state,
            pooler_output=pooled,
            hidden_states=records.hidden_states,
            attentions=records.attentions,
            image_embeds=None if self.head is None else self.head(pooled),
            patch_features=patches.unflatten(1, (grid.h, grid.w)),
        )

    def get_feature_map(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        """Features of the patches of every frame, which know nothing of other frames.

        Args:
            pixel_values_videos: (B, T, C, H, W), values in [-1, 1].

        Returns:
            (B, T, h, w, D).
        """
        check_video(pixel_values_videos, self.config.num_channels)
        features = self(pixel_values_videos.flatten(0, 1), return_dict=True).patch_features
        return features.unflatten(0, pixel_values_videos.shape[:2])

    def embed_videos(
        self, pixel_values_videos: torch.Tensor, padding_mask_videos: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The mean over frames, as the original's `encode_video` takes it, of the mean over each one's patches.

        Args:
            pixel_values_videos: (B, T, C, H, W), values in [-1, 1].
            padding_mask_videos: (B, T), 1 at frames of the video and 0 at frames that only fill the batch.

        Returns:
            (B, D), float32.
        """
        check_video(pixel_values_videos, self.config.num_channels)
        real = real_frames(padding_mask_videos, pixel_values_videos)
        features = run_on_frames(self, pixel_values_videos, real).patch_features  # (B·T, h, w, D)
        frames = features.float().mean((1, 2)).unflatten(0, pixel_values_videos.shape[:2])  # (B, T, D)
        return mean_of_frames(frames, real)

    def encode_frames(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        return self.get_feature_map(pixel_values_videos)

    def encode_clip(self, frames: torch.Tensor) -> torch.Tensor:
        return frames

    def _embed(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, Grid]:
        """The input of the first block, (B, N, D), and the grid of its patches."""
        num_channels = self.config.num_channels
        if pixel_values.ndim != 4 or pixel_values.shape[1] != num_channels or pixel_values.shape[0] == 0:
            raise ValueError(
                f"Expected `pixel_values` of shape (batch, {num_channels}, height, width) with at least one image, "
                f"got {tuple(pixel_values.shape)}. Flatten videos to a batch of frames."
            )
        images, grid = cut_to_tubelets(pixel_values[:, None], 1, self.config.patch_size)
        tokens = self.patch_embed(images[:, 0])
        prefix = int(self.config.use_cls_token)
        positions = resize_position_grid(
            self.pos_embed[:, prefix:], self.config.position_grid, (grid.h, grid.w), antialias=False
        )
        tokens = tokens + positions
        if self.cls_token is not None:
            first = self.cls_token + self.pos_embed[:, :1]
            tokens = torch.cat([first.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        return self.norm_pre(tokens), grid

    def _rotary(self, grid: Grid, device: torch.device) -> RotaryTable:
        """Rotary factors of the tokens: columns turn the first half of a head's channels, rows the second.

        Patches are numbered from 1 where a class token, which has the number 0 on both axes, stands before them, and
        from 0 otherwise.
        """
        prefix = int(self.config.use_cls_token)
        rows = (torch.arange(grid.h, device=device) + prefix).repeat_interleave(grid.w)
        columns = (torch.arange(grid.w, device=device) + prefix).repeat(grid.h)
        axes = tuple(nn.functional.pad(axis, (prefix, 0))[None] for axis in (columns, rows))
        head_dim = self.config.hidden_size // self.config.num_attention_heads
        return rotary_table(axes, head_dim, pairing="interleaved", dtype=torch.float32)


def check_video(video: torch.Tensor, num_channels: int) -> None:
    """A ValueError for what isn't `pixel_values_videos` of frames with so many channels."""
    if video.ndim != 5 or video.shape[2] != num_channels or 0 in video.shape:
        raise ValueError(
            f"Expected `pixel_values_videos` of shape (batch, frames, {num_channels}, height, width), with at least "
            f"one of each, got {tuple(video.shape)}. The video processor returns this layout."
        )


def real_frames(padding_mask: torch.Tensor | None, video: torch.Tensor) -> torch.Tensor | None:
    """A mask (B, T) of the frames of videos (B, T, …) as booleans, or a ValueError for one without a mean."""
    if padding_mask is None:
        return None
    real = padding_mask.bool()
    if real.shape != video.shape[:2]:
        raise ValueError(
            f"Expected `padding_mask_videos` of shape (batch, frames) = {tuple(video.shape[:2])}, got "
            f"{tuple(real.shape)}."
        )
    is_known = real.device.type == "cpu" and not torch.compiler.is_compiling()
    if is_known and not real.any(1).all():
        raise ValueError("`padding_mask_videos` leaves a video without any frame, so that it has no mean.")
    return real


def mean_of_frames(frames: torch.Tensor, real: torch.Tensor | None) -> torch.Tensor:
    """The mean (B, D) of frames (B, T, D) that are zero where `real` (B, T), if there is one, is false."""
    return frames.mean(1) if real is None else frames.sum(1) / real.sum(1, keepdim=True)


def run_on_frames(tower: nn.Module, video: torch.Tensor, real: torch.Tensor | None, **flags: bool) -> PeVisionOutput:
    """Run the tower on the frames of videos, but not on those that only fill the batch.

    A traced program runs it on all of them, since it cannot have shapes that depend on the mask. Otherwise their
    number has to be known, for which a GPU is waited for once.

    Args:
        tower: a [`PeVisionModel`], or what holds one.
        video: (B, T, C, H, W).
        real: (B, T) booleans, false at frames that fill the batch; `None` where there are none.
        flags: what the tower is to record.

    Returns:
        The tower's output for (B·T, …) frames, zero at those that fill the batch.
    """
    frames = video.flatten(0, 1)  # (B·T, C, H, W)
    if real is None:
        return tower(frames, **flags, return_dict=True)
    which = real.flatten()  # (B·T,)
    if torch.compiler.is_compiling():
        output = tower(frames, **flags, return_dict=True)

        def place(rows: torch.Tensor) -> torch.Tensor:
            return rows.masked_fill(~which.view(-1, *[1] * (rows.ndim - 1)), 0.0)
    else:
        index = which.nonzero()[:, 0]
        if len(index) == len(which):
            return tower(frames, **flags, return_dict=True)
        # The tower takes no empty batch: without any real frame it runs on one, of which nothing is kept.
        output = tower(frames[index] if len(index) else frames[:1], **flags, return_dict=True)

        def place(rows: torch.Tensor) -> torch.Tensor:
            placed = rows.new_zeros(which.shape[0], *rows.shape[1:])
            return placed.index_copy(0, index, rows[: len(index)])

    placed = {
        name: tuple(map(place, value)) if isinstance(value, tuple) else place(value) for name, value in output.items()
    }
    return PeVisionOutput(**placed)


__all__ = ["PeVisionModel", "PeVisionPreTrainedModel"]
