"""VideoPrism's factorized video encoder, with what stands on it: the video tower, and a classifier.

Paper: https://arxiv.org/abs/2402.13217. Original code: google-deepmind/videoprism at d481d91b, in `videoprism`:
`encoders.py` and `layers.py`.

Shapes: B videos of T frames with C channels and H × W pixels; N patches of a frame; D channels of a token; Q queries
of a pooler.
"""

from dataclasses import dataclass, fields
from math import sqrt
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPooling, ImageClassifierOutput
from transformers.utils import can_return_tuple

from vidformers.layers.attention import attention
from vidformers.layers.block import Mlp, Records
from vidformers.layers.cpu import float32_products
from vidformers.layers.patchify import Grid, embed_video, on_grid
from vidformers.layers.positions import resize_position_grid

from ..pretrained import ClassifiesViews, VideoPreTrainedModel
from .configuration_videoprism import VideoPrismConfig, VideoPrismTextConfig, VideoPrismVisionConfig


TowerConfig = VideoPrismVisionConfig | VideoPrismTextConfig


@dataclass
class VideoPrismStages:
    """Features and records of the encoder's two stages, which every output with an encoder under it passes on.

    Args:
        spatial_features: (B, T·N, D), the normalized output of the spatial blocks: the original's features of single
            frames.
        spatial_hidden_states: (B·T, N, D), the input of every spatial block and the output of the last one.
        spatial_attentions: (B·T, heads, N, N) of every spatial block.
        temporal_hidden_states: (B·N, T, D), the input of every temporal block and the output of the last one.
        temporal_attentions: (B·N, heads, T, T) of every temporal block.
    """

    spatial_features: torch.Tensor | None = None
    spatial_hidden_states: tuple[torch.Tensor, ...] | None = None
    spatial_attentions: tuple[torch.Tensor, ...] | None = None
    temporal_hidden_states: tuple[torch.Tensor, ...] | None = None
    temporal_attentions: tuple[torch.Tensor, ...] | None = None


PASSED_ON = ("hidden_states", "attentions", *(field.name for field in fields(VideoPrismStages)))
"""Fields of the encoder's output that models on top of it have too."""


@dataclass
class VideoPrismLastStates(BaseModelOutput):
    """The outputs of the encoder's last blocks, in transformers' order of the fields."""

    last_temporal_hidden_state: torch.Tensor | None = None
    last_spatial_hidden_state: torch.Tensor | None = None


@dataclass
class VideoPrismVisionOutput(VideoPrismStages, VideoPrismLastStates):
    """What [`VideoPrismVisionModel`] computes.

    Args:
        last_hidden_state: (B, T·N, D), frame by frame, normalized.
        hidden_states: as transformers has them: the input of the first spatial block and the output of every spatial
            block, (B·T, N, D), and of every temporal block, (B·N, T, D), with `last_hidden_state` in the place of the
            last one.
        attentions: of the spatial blocks, (B·T, heads, N, N), then of the temporal blocks, (B·N, heads, T, T).
        last_temporal_hidden_state: (B·N, T, D), output of the last temporal block, not normalized.
        last_spatial_hidden_state: (B·T, N, D), output of the last spatial block, not normalized.
        spatial_features, spatial_hidden_states, spatial_attentions, temporal_hidden_states, temporal_attentions: of
            the encoder's stages, as in [`VideoPrismStages`].
    """


@dataclass
class VideoPrismVideoOutput(VideoPrismStages, BaseModelOutputWithPooling):
    """What [`VideoPrismVideoModel`] computes.

    Args:
        last_hidden_state: (B, T·N, D), output of the auxiliary blocks.
        pooler_output: (B, D), the video embeddings; (B, Q, D) with several pooling queries. Of length one if
            `config.apply_l2norm` is on.
        hidden_states: of the encoder, as in [`VideoPrismVisionOutput`].
        attentions: of the encoder, as in [`VideoPrismVisionOutput`].
        frame_embeddings: (B, T, D) or (B, T, Q, D), every frame pooled by itself, when they were asked for.
        spatiotemporal_features: (B, T·N, D), the encoder's output.
        auxiliary_hidden_states: (B, T·N, D), the input of every auxiliary block and the output of the last one.
        auxiliary_attentions: (B, heads, T·N, T·N) of every auxiliary block.
        spatial_features, spatial_hidden_states, spatial_attentions, temporal_hidden_states, temporal_attentions: of
            the encoder's stages, as in [`VideoPrismStages`].
    """

    frame_embeddings: torch.Tensor | None = None
    spatiotemporal_features: torch.Tensor | None = None
    auxiliary_hidden_states: tuple[torch.Tensor, ...] | None = None
    auxiliary_attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class VideoPrismVideoClassifierOutput(VideoPrismStages, ImageClassifierOutput):
    """What [`VideoPrismForVideoClassification`] computes.

    Args:
        loss: scalar, when labels were given.
        logits: (B, num_labels).
        hidden_states: of the encoder, as in [`VideoPrismVisionOutput`].
        attentions: of the encoder, as in [`VideoPrismVisionOutput`].
        pooler_output: (B, D), what the classifier reads.
        spatiotemporal_features: (B, T·N, D), the encoder's output.
        spatial_features, spatial_hidden_states, spatial_attentions, temporal_hidden_states, temporal_attentions: of
            the encoder's stages, as in [`VideoPrismStages`].
    """

    pooler_output: torch.Tensor | None = None
    spatiotemporal_features: torch.Tensor | None = None


class OffsetLayerNorm(nn.LayerNorm):
    """Layer norm whose stored weight is the scale's distance from 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.layer_norm(x, self.normalized_shape, self.weight + 1.0, self.bias, self.eps)


def l2_normalize(x: torch.Tensor, eps: float = 1e-12) -> torch.Tensor:
    """x / sqrt(Σ x² + eps) over the last axis, computed in float32, in the dtype of `x`."""
    squares = x.float().square().sum(-1, keepdim=True)
    return (x.float() * (squares + eps).rsqrt()).to(x.dtype)


class VideoPrismTubeletEmbeddings(nn.Module):
    """Holds the patch projection under the name that it has on disk."""

    def __init__(self, config: VideoPrismVisionConfig):
        super().__init__()
        tubelet = tuple(config.tubelet_size)
        self.projection = nn.Conv3d(config.num_channels, config.hidden_size, kernel_size=tubelet, stride=tubelet)

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        """Embed the patches of videos (B, T, C, H, W): (B, T·N, D)."""
        return embed_video(self.projection, video)


class VideoPrismSpatialEmbeddings(nn.Module):
    """Videos to tokens of single frames, with their places in the frame."""

    def __init__(self, config: VideoPrismVisionConfig):
        super().__init__()
        self.config = config
        self.patch_embeddings = VideoPrismTubeletEmbeddings(config)
        rows, columns = config.position_grid
        self.position_embeddings = nn.Parameter(torch.zeros(1, rows * columns, config.hidden_size))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, video: torch.Tensor, interpolate: bool) -> tuple[torch.Tensor, Grid]:
        """Embed videos (B, T, C, H, W) as (B·T, N, D), and tell their grid."""
        grid = self._grid(video, interpolate)
        tokens = self.patch_embeddings(video).unflatten(1, (grid.t, -1)).flatten(0, 1)  # (B·T, N, D)
        positions = resize_position_grid(self.position_embeddings, self.config.position_grid, (grid.h, grid.w))
        return self.dropout(tokens + positions), grid

    def _grid(self, video: torch.Tensor, interpolate: bool) -> Grid:
        """The token grid, after the checks of the input's shape."""
        config, patch_size = self.config, self.config.tubelet_size[1]
        if video.ndim != 5 or video.shape[2] != config.num_channels:
            raise ValueError(
                f"Expected `pixel_values_videos` of shape (batch, frames, {config.num_channels}, height, width), got "
                f"{tuple(video.shape)}. The video processor returns this layout."
            )
        num_frames, (height, width) = video.shape[1], video.shape[3:]
        grid = Grid(num_frames, height // patch_size, width // patch_size)
        if torch.compiler.is_compiling():
            return grid
        if video.shape[0] == 0 or min(grid) < 1 or height % patch_size or width % patch_size:
            raise ValueError(
                f"Expected at least one video and one frame, of whole patches of {patch_size} × {patch_size} pixels, "
                f"got `pixel_values_videos` of shape {tuple(video.shape)}. Resize to multiples of {patch_size}."
            )
        if not interpolate and (num_frames, grid.h, grid.w) != (config.num_frames, *config.position_grid):
            raise ValueError(
                f"The input has {num_frames} frame(s) of {height} × {width} pixels, the model {config.num_frames} of "
                f"{config.image_size}. Pass `interpolate_pos_encoding=True` to fit the position tables to it."
            )
        return grid


class VideoPrismTemporalEmbeddings(nn.Module):
    """Adds places in time to the features of frames."""

    def __init__(self, config: VideoPrismVisionConfig):
        super().__init__()
        self.position_embeddings = nn.Parameter(torch.zeros(1, config.num_frames, config.hidden_size))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, features: torch.Tensor, num_frames: int) -> torch.Tensor:
        """Turn features of frames (B·T, N, D) into sequences through time (B·N, T, D)."""
        sequences = features.unflatten(0, (-1, num_frames)).transpose(1, 2).flatten(0, 1)  # (B·N, T, D)
        length = self.position_embeddings.shape[1]
        return self.dropout(sequences + resize_position_grid(self.position_embeddings, (length, 1), (num_frames, 1)))


class VideoPrismAttention(nn.Module):
    """Self-attention with bounded scores."""

    is_causal = False

    def __init__(self, config: TowerConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, hidden_states: torch.Tensor, *, mask: torch.Tensor | None, output_attentions: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        query, key, value = (
            projection(hidden_states).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (B, heads, N, head_dim)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended, probabilities = attention(
            self,
            query,
            key,
            value,
            scaling=self.head_dim**-0.5,
            dropout=self.config.attention_probs_dropout_prob,
            softcap=self.config.attn_logit_softcapping,
            mask=mask,
            output_attentions=output_attentions,
        )
        return self.o_proj(attended), probabilities


class VideoPrismLayer(GradientCheckpointingLayer):
    """Transformer block with normalized inputs and, under the policy "primer_hybrid", normalized outputs too."""

    def __init__(self, config: TowerConfig, norm_policy: str = "pre"):
        super().__init__()
        self.layernorm_before = OffsetLayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = VideoPrismAttention(config)
        self.layernorm_after = OffsetLayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        # The exact GELU has a fused kernel; "gelu_python" spells it out in five passes.
        activation = "gelu" if config.hidden_act == "gelu_python" else config.hidden_act
        self.mlp = Mlp(config.hidden_size, config.intermediate_size, activation)
        self.attention_dropout = nn.Dropout(config.hidden_dropout_prob)
        self.mlp_dropout = nn.Dropout(config.hidden_dropout_prob)
        self.attention_post_layernorm = self.mlp_post_layernorm = None
        if norm_policy == "primer_hybrid":
            self.attention_post_layernorm = OffsetLayerNorm(config.hidden_size, eps=config.layer_norm_eps)
            self.mlp_post_layernorm = OffsetLayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self,
        hidden_states: torch.Tensor,
        *,
        mask: torch.Tensor | None = None,
        real: torch.Tensor | None = None,
        output_attentions: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Run the block.

        Args:
            hidden_states: (B, N, D).
            mask: which token attends to which, as for [`vidformers.layers.attention.attention`].
            real: (B, N) booleans, false at padding, where the MLP contributes zero, its bias included.
            output_attentions: whether the attention probabilities are wanted.

        Returns:
            (B, N, D), and the probabilities (B, heads, N, N) or `None`.
        """
        attended, probabilities = self.attention(
            self.layernorm_before(hidden_states), mask=mask, output_attentions=output_attentions
        )
        if self.attention_post_layernorm is not None:
            attended = self.attention_post_layernorm(attended)
        hidden_states = hidden_states + self.attention_dropout(attended)
        transformed = self.mlp(self.layernorm_after(hidden_states))
        if real is not None:
            transformed = transformed * real[..., None]
        if self.mlp_post_layernorm is not None:
            transformed = self.mlp_post_layernorm(transformed)
        return hidden_states + self.mlp_dropout(transformed), probabilities


def run_blocks(
    blocks: nn.ModuleList,
    hidden_states: torch.Tensor,
    *,
    mask: torch.Tensor | None = None,
    real: torch.Tensor | None = None,
    output_hidden_states: bool = False,
    output_attentions: bool = False,
) -> tuple[torch.Tensor, Records]:
    """Run blocks one after the other on (B, N, D), all with the arguments of [`VideoPrismLayer`]."""
    records = Records(hidden_states, output_hidden_states, output_attentions)
    for block in blocks:
        hidden_states, probabilities = block(hidden_states, mask=mask, real=real, output_attentions=output_attentions)
        records.add(hidden_states, probabilities)
    return hidden_states, records


class VideoPrismPreTrainedModel(VideoPreTrainedModel):
    """Weight initialization, loading and saving for all VideoPrism models."""

    config_class = VideoPrismConfig
    config: VideoPrismConfig
    base_model_prefix = "model"
    input_modalities = ("video", "text")
    main_input_name = "pixel_values_videos"
    _no_split_modules = [
        *("VideoPrismLayer", "VideoPrismMultiheadAttentionPoolingHead"),
        *("VideoPrismSpatialEmbeddings", "VideoPrismTemporalEmbeddings", "VideoPrismTextEmbeddings"),
    ]

    @property
    def frames_per_clip(self) -> int | None:
        return getattr(getattr(self.config, "vision_config", self.config), "num_frames", None)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """LeCun normals, biases and the distances of norms from 1 zero, embeddings normal with deviation 1/√D."""
        if isinstance(module, (nn.Linear, nn.Conv3d)):
            init.lecun_normal_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, OffsetLayerNorm):
            init.zeros_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=module.embedding_dim**-0.5)
        elif isinstance(module, (VideoPrismSpatialEmbeddings, VideoPrismTemporalEmbeddings)):
            init.normal_(module.position_embeddings, std=module.position_embeddings.shape[-1] ** -0.5)
        elif isinstance(module, VideoPrismMultiheadAttentionPoolingHead):
            init.zeros_(module.per_dim_scale)
            init.normal_(module.pooling_attention_query, std=module.pooling_attention_query.shape[-1] ** -0.5)


class VideoPrismVisionModel(VideoPrismPreTrainedModel):
    """The encoder: blocks over the patches of every frame, then blocks over the frames at every place."""

    config_class = VideoPrismVisionConfig
    config: VideoPrismVisionConfig
    base_model_prefix = "vision_model"
    input_modalities = ("video",)
    encodes_frames_separately = True

    def __init__(self, config: VideoPrismVisionConfig):
        super().__init__(config)
        self.spatial_embeddings = VideoPrismSpatialEmbeddings(config)
        self.spatial_layers = nn.ModuleList(VideoPrismLayer(config) for _ in range(config.num_spatial_layers))
        self.layernorm1 = OffsetLayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.temporal_embeddings = VideoPrismTemporalEmbeddings(config)
        self.temporal_layers = nn.ModuleList(VideoPrismLayer(config) for _ in range(config.num_temporal_layers))
        self.layernorm2 = OffsetLayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.spatial_embeddings.patch_embeddings

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: torch.Tensor,
        interpolate_pos_encoding: bool = False,
        padding_mask_videos: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> VideoPrismVisionOutput:
        r"""Encode videos.

        Args:
            pixel_values_videos: (B, T, C, H, W), values in [0, 1].
            interpolate_pos_encoding: fit the position tables to inputs of another number of frames or another size.
            padding_mask_videos: (B, T), 1 at frames of the video and 0 at frames that only fill the batch. Padding
                frames are not attended to through time; what the model returns for them means nothing.
            output_hidden_states, output_attentions: what to record, as for [`VideoPreTrainedModel`].

        Returns:
            [`VideoPrismVisionOutput`].

        Raises:
            ValueError: an input of the wrong shape, or of another size without `interpolate_pos_encoding`.
        """
        flags = self._flags(output_hidden_states, output_attentions)
        num_videos = pixel_values_videos.shape[0]
        tokens, grid = self.spatial_embeddings(pixel_values_videos, interpolate_pos_encoding)  # (B·T, N, D)
        of_frames, of_places = self._padding(padding_mask_videos, grid)
        last_spatial, spatial = run_blocks(self.spatial_layers, tokens, **of_frames, **flags)
        features = self.layernorm1(last_spatial)

        sequences = self.temporal_embeddings(features, grid.t)  # (B·N, T, D)
        last_temporal, temporal = run_blocks(self.temporal_layers, sequences, **of_places, **flags)
        normalized = self.layernorm2(last_temporal)
        last_hidden_state = normalized.unflatten(0, (num_videos, -1)).transpose(1, 2).flatten(1, 2)  # (B, T·N, D)

        hidden_states = attentions = None
        if spatial.hidden_states is not None:
            hidden_states = (*spatial.hidden_states, *temporal.hidden_states[1:])[:-1] + (last_hidden_state,)
        if spatial.attentions is not None:
            attentions = spatial.attentions + temporal.attentions
        return VideoPrismVisionOutput(
            last_hidden_state=last_hidden_state,
            hidden_states=hidden_states,
            attentions=attentions,
            last_temporal_hidden_state=last_temporal,
            last_spatial_hidden_state=last_spatial,
            spatial_features=features.unflatten(0, (num_videos, -1)).flatten(1, 2),
            spatial_hidden_states=spatial.hidden_states,
            spatial_attentions=spatial.attentions,
            temporal_hidden_states=temporal.hidden_states,
            temporal_attentions=temporal.attentions,
        )

    def get_feature_map(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        features = self(pixel_values_videos, interpolate_pos_encoding=True, return_dict=True).last_hidden_state
        return on_grid(features, pixel_values_videos, self.config.tubelet_size[1])

    def encode_frames(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        """The spatial blocks, which see every frame by itself.

        Args:
            pixel_values_videos: (B, T, C, H, W), values in [0, 1], of any size.

        Returns:
            (B, T, h, w, D), the `spatial_features` of a call on their grid.
        """
        with float32_products(self.dtype, self.device):
            tokens, grid = self.spatial_embeddings(pixel_values_videos, interpolate=True)  # (B·T, N, D)
            features = self.layernorm1(run_blocks(self.spatial_layers, tokens)[0])
        return features.unflatten(1, (grid.h, grid.w)).unflatten(0, (-1, grid.t))

    def encode_clip(self, frames: torch.Tensor) -> torch.Tensor:
        """The temporal blocks over frames that [`~VideoPrismVisionModel.encode_frames`] encoded.

        Args:
            frames: (B, T, h, w, D), those of a clip in order; the table of times is fitted to their number.

        Returns:
            (B, T, h, w, D), the feature map.
        """
        num_videos, num_frames, height, width = frames.shape[:4]
        with float32_products(self.dtype, self.device):
            sequences = self.temporal_embeddings(frames.flatten(2, 3).flatten(0, 1), num_frames)  # (B·N, T, D)
            features = self.layernorm2(run_blocks(self.temporal_layers, sequences)[0])
        return features.unflatten(0, (num_videos, height, width)).movedim(3, 1)

    @staticmethod
    def _padding(padding_mask: torch.Tensor | None, grid: Grid) -> tuple[dict[str, Any], dict[str, Any]]:
        """Arguments of the spatial blocks, and of the temporal blocks, from a mask (B, T) with 1 at real frames.

        A padding frame is padding throughout, so that its patches attend to each other alike.
        """
        if padding_mask is None:
            return {}, {}
        if padding_mask.ndim != 2 or padding_mask.shape[1] != grid.t:
            raise ValueError(
                f"Expected `padding_mask_videos` of shape (batch, frames = {grid.t}), got {tuple(padding_mask.shape)}."
            )
        real = padding_mask.bool()
        frames = real.flatten()[:, None]  # (B·T, 1)
        sequences = real.repeat_interleave(grid.h * grid.w, dim=0)  # (B·N, T)
        return tuple({"mask": each[:, None, None], "real": each} for each in (frames, sequences))


def encoder_fields(encoded: VideoPrismVisionOutput) -> dict[str, Any]:
    """What models on top of the encoder pass on of its output."""
    passed_on = {name: getattr(encoded, name) for name in PASSED_ON}
    return {"spatiotemporal_features": encoded.last_hidden_state, **passed_on}


class VideoPrismMultiheadAttentionPoolingHead(nn.Module):
    """Attention of learned queries to the tokens. Its scores have no bound; a learned factor scales every channel.

    Source: `AttenTokenPoolingLayer` and `PerDimScale`.
    """

    is_causal = False

    def __init__(self, config: VideoPrismVisionConfig, num_queries: int = 1):
        super().__init__()
        self.config = config
        self.num_heads = config.num_attention_heads
        self.head_dim = config.pooler_head_dim or config.intermediate_size // config.num_attention_heads
        width = self.num_heads * self.head_dim
        self.q_proj = nn.Linear(config.hidden_size, width, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, width, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, width, bias=config.qkv_bias)
        self.o_proj = nn.Linear(width, config.hidden_size)
        self.per_dim_scale = nn.Parameter(torch.zeros(self.head_dim))
        self.pooling_attention_query = nn.Parameter(torch.zeros(1, num_queries, config.hidden_size))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Pool tokens (B, N, D) into (B, Q, D)."""
        queries = self.pooling_attention_query.expand(tokens.shape[0], -1, -1)
        query, key, value = (
            projected.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)  # (B, heads, Q or N, head_dim)
            for projected in (self.q_proj(queries), self.k_proj(tokens), self.v_proj(tokens))
        )
        softplus_of_zero_inverse = 1.442695041
        scale = softplus_of_zero_inverse / sqrt(self.head_dim) * nn.functional.softplus(self.per_dim_scale.float())
        dropout = self.config.attention_probs_dropout_prob
        attended, _ = attention(self, (query * scale).to(key.dtype), key, value, scaling=1.0, dropout=dropout)
        return self.o_proj(attended)


class VideoPrismVideoModel(VideoPrismPreTrainedModel):
    """The video tower: the encoder, blocks over all tokens, and a pooler."""

    config_class = VideoPrismVisionConfig
    config: VideoPrismVisionConfig
    base_model_prefix = "vision_model"
    input_modalities = ("video",)
    encodes_frames_separately = True

    def __init__(self, config: VideoPrismVisionConfig):
        super().__init__(config)
        self.vision_model = VideoPrismVisionModel(config)
        self.auxiliary_layers = nn.ModuleList(VideoPrismLayer(config) for _ in range(config.num_auxiliary_layers))
        self.head = VideoPrismMultiheadAttentionPoolingHead(config, config.num_pooling_queries)
        self.head_layernorm = OffsetLayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    @property
    def feature_tower(self) -> VideoPrismVisionModel:
        return self.vision_model

    def get_feature_map(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        return self.vision_model.get_feature_map(pixel_values_videos)

    def encode_frames(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        return self.vision_model.encode_frames(pixel_values_videos)

    def encode_clip(self, frames: torch.Tensor) -> torch.Tensor:
        return self.vision_model.encode_clip(frames)

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: torch.Tensor,
        interpolate_pos_encoding: bool = False,
        padding_mask_videos: torch.Tensor | None = None,
        output_frame_embeddings: bool = False,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> VideoPrismVideoOutput:
        r"""Embed videos.

        Args:
            pixel_values_videos: (B, T, C, H, W), values in [0, 1].
            interpolate_pos_encoding: fit the position tables to inputs of another number of frames or another size.
            padding_mask_videos: (B, T), 1 at frames of the video. As in the original, only the encoder knows padding:
                auxiliary blocks and pooler see what it made of the padding frames.
            output_frame_embeddings: pool every frame by itself as well.
            output_hidden_states, output_attentions: what to record, as for [`VideoPreTrainedModel`].

        Returns:
            [`VideoPrismVideoOutput`].
        """
        flags = self._flags(output_hidden_states, output_attentions)
        encoded = self.vision_model(
            pixel_values_videos,
            interpolate_pos_encoding=interpolate_pos_encoding,
            padding_mask_videos=padding_mask_videos,
            **flags,
            return_dict=True,
        )
        tokens, auxiliary = run_blocks(self.auxiliary_layers, encoded.last_hidden_state, **flags)  # (B, T·N, D)
        frame_embeddings = None
        if output_frame_embeddings:
            num_videos, num_frames = pixel_values_videos.shape[:2]
            frames = tokens.unflatten(1, (num_frames, -1)).flatten(0, 1)  # (B·T, N, D)
            frame_embeddings = self._pool(frames).unflatten(0, (num_videos, num_frames))
        return VideoPrismVideoOutput(
            last_hidden_state=tokens,
            pooler_output=self._pool(tokens),
            frame_embeddings=frame_embeddings,
            auxiliary_hidden_states=auxiliary.hidden_states,
            auxiliary_attentions=auxiliary.attentions,
            **encoder_fields(encoded),
        )

    def _embed_features(self, features: torch.Tensor) -> torch.Tensor:
        """Video embeddings (B, D) of the encoder's features (B, T, h, w, D)."""
        with float32_products(self.dtype, self.device):
            return self._pool(run_blocks(self.auxiliary_layers, features.flatten(1, 3))[0])

    def _pool(self, tokens: torch.Tensor) -> torch.Tensor:
        """Embeddings (B, D) of tokens (B, N, D), or (B, Q, D) with several queries."""
        pooled = self.head_layernorm(self.head(tokens))
        pooled = pooled[:, 0] if self.config.num_pooling_queries == 1 else pooled
        return l2_normalize(pooled) if self.config.apply_l2norm else pooled


class VideoPrismForVideoClassification(ClassifiesViews, VideoPrismPreTrainedModel):
    """The encoder with a pooler and a linear classifier."""

    config_class = VideoPrismVisionConfig
    config: VideoPrismVisionConfig
    base_model_prefix = "vision_model"
    input_modalities = ("video",)

    def __init__(self, config: VideoPrismVisionConfig):
        super().__init__(config)
        self.vision_model = VideoPrismVisionModel(config)
        self.head = VideoPrismMultiheadAttentionPoolingHead(config)
        self.head_layernorm = OffsetLayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: torch.Tensor,
        labels: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        padding_mask_videos: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> VideoPrismVideoClassifierOutput:
        r"""Classify videos.

        Args:
            pixel_values_videos: (B, T, C, H, W), values in [0, 1].
            labels: (B,) class numbers; with `config.problem_type`, targets (B, num_labels) of another kind.
            interpolate_pos_encoding: fit the position tables to inputs of another number of frames or another size.
            padding_mask_videos: (B, T), 1 at frames of the video. As in the original, the pooler sees what the
                encoder made of the padding frames.
            output_hidden_states, output_attentions: what to record, as for [`VideoPreTrainedModel`].

        Returns:
            [`VideoPrismVideoClassifierOutput`].
        """
        flags = self._flags(output_hidden_states, output_attentions)
        encoded = self.vision_model(
            pixel_values_videos,
            interpolate_pos_encoding=interpolate_pos_encoding,
            padding_mask_videos=padding_mask_videos,
            **flags,
            return_dict=True,
        )
        pooled = self.head_layernorm(self.head(encoded.last_hidden_state))[:, 0]  # (B, D)
        logits = self.classifier(pooled)
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        return VideoPrismVideoClassifierOutput(
            loss=loss,
            logits=logits,
            pooler_output=pooled,
            **encoder_fields(encoded),
        )


__all__ = [
    "VideoPrismForVideoClassification",
    "VideoPrismPreTrainedModel",
    "VideoPrismVideoModel",
    "VideoPrismVisionModel",
]
