"""V-JEPA 2 and 2.1: a video encoder trained to predict its own features, and its predictor.

`modeling_vjepa2_probes.py` has the probes on top, `modeling_vjepa2_ac.py` the predictor for robots.

Papers: V-JEPA 2 (https://arxiv.org/abs/2506.09985). Original code: facebookresearch/vjepa2 at c2963a47 (V-JEPA 2) and
at 204698b4, `app/vjepa_2_1/models` (V-JEPA 2.1).

Shapes: B videos of T frames with C channels and H × W pixels; N tokens on a grid of t × h × w; D channels of a token;
S levels, the encoder blocks of `config.hierarchical_layers`, of which the predictor reads the last S'; M selections of
tokens ("masks") from every video, K tokens each. Whatever holds several selections holds them one after the other:
(M·B, K, D).
"""

import copy
from dataclasses import dataclass

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import ModelOutput, can_return_tuple, logging

from vidformers.layers.attention import attention
from vidformers.layers.block import DropPath, Mlp, Records, drop_path_rates
from vidformers.layers.patchify import (
    Grid,
    ascending_order,
    cut_to_tubelets,
    embed_tubelets,
    embed_video,
    on_grid,
    select_tokens,
    split_token_ids,
    tubelets_of,
)
from vidformers.layers.rope import RotaryTable, apply_rotary, rotary_table

from ..attentive_pooler import init_residual
from ..pretrained import NestedOutput, VideoPreTrainedModel
from .configuration_vjepa2 import VJEPA2Config
from .masking_vjepa2 import Masks, highest_on_cpu, join_masks, pair_masks


logger = logging.get_logger(__name__)


@dataclass
class VJEPA2EncoderOutput(BaseModelOutput):
    """What the encoder computes.

    Args:
        last_hidden_state: (B, N, D), or (M·B, K, D) when it was given a selection; normalized.
        hidden_states: the input of every block and the output of the last one, before the final norm.
        attentions: (B, heads, N, N) of every block.
        out_layer_hidden_states: normalized output of each block asked for, in the order asked.
        hierarchical_hidden_state: (B, N, S·D) or (M·B, K, S·D): normalized outputs of the S levels on the channel
            axis.
        grid: the grid of the whole input.
    """

    out_layer_hidden_states: tuple[torch.Tensor, ...] | None = None
    hierarchical_hidden_state: torch.Tensor | None = None
    grid: Grid | None = None


@dataclass
class VJEPA2WithMaskedInputPredictorOutput(ModelOutput):
    """What the predictor computes.

    Args:
        last_hidden_state: predicted features (M·B, L, D) of the target tokens in the order of `target_mask`; with
            `return_all_tokens`, of context and target tokens together in the order of their positions.
        masked_hidden_state: always `None`; transformers has the field.
        hidden_states: the input of every predictor block and the output of the last one, before the norm,
            (M·B, K + L, P); K context tokens first, then L target tokens.
        attentions: probabilities of every predictor block, (M·B, heads, K + L, K + L), same order.
        target_hidden_state: the encoder's features (M·B, L, D) of the target tokens after a pass over the whole
            video. `None` when the encoder saw a part of the video only, unless `return_target_hidden_state` asked for
            the second pass that it costs. With several distillation outputs, those of their levels.
        context_predictions: with `config.use_context_projection`, predicted features (M·B, K, D) of the context
            tokens in the order of `context_mask`.
    """

    last_hidden_state: torch.Tensor | None = None
    masked_hidden_state: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    target_hidden_state: torch.Tensor | None = None
    context_predictions: torch.Tensor | None = None


@dataclass
class VJEPA2WithMaskedInputModelOutput(NestedOutput):
    """What [`VJEPA2Model`] computes.

    Args:
        last_hidden_state: the encoder's features, (B, N, D); with `context_mask` those of the context tokens alone,
            (M·B, K, D), because the encoder sees nothing else.
        masked_hidden_state: the features that the predictor starts from: the same tensor, or with several
            distillation outputs the channels of their levels, (B, N, S'·D) or (M·B, K, S'·D).
        hidden_states: of the encoder: the input of every block and the output of the last one, before the final norm,
            (B, N, D) or (M·B, K, D).
        attentions: of the encoder, (B, heads, N, N) or (M·B, heads, K, K).
        predictor_output: a [`VJEPA2WithMaskedInputPredictorOutput`], or `None` when the predictor did not run.
        out_layer_hidden_states: normalized output of each encoder block in `out_layers`, (B, N, D) or (M·B, K, D).
        hierarchical_hidden_state: with `config.hierarchical_layers`, the encoder's features on S levels, (B, N, S·D)
            or (M·B, K, S·D).
    """

    last_hidden_state: torch.Tensor | None = None
    masked_hidden_state: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    predictor_output: VJEPA2WithMaskedInputPredictorOutput | None = None
    out_layer_hidden_states: tuple[torch.Tensor, ...] | None = None
    hierarchical_hidden_state: torch.Tensor | None = None


class VJEPA2PatchEmbeddings3D(nn.Module):
    """Holds the tubelet projection under the name that it has on disk."""

    def __init__(self, config: VJEPA2Config, tubelet_size: int):
        super().__init__()
        self.tubelet_size, self.patch_size = tubelet_size, config.patch_size
        kernel = (tubelet_size, config.patch_size, config.patch_size)
        self.proj = nn.Conv3d(config.in_chans, config.hidden_size, kernel_size=kernel, stride=kernel)

    def forward(self, video: torch.Tensor, grid: Grid, token_ids: torch.Tensor | None = None) -> torch.Tensor:
        """Embed all tokens of videos (B, T, C, H, W), or those of `token_ids` (M·B, K): (B, N, D) or (M·B, K, D)."""
        if token_ids is None:
            return embed_video(self.proj, video)
        return embed_tubelets(self.proj, tubelets_of(video, grid, self.tubelet_size, self.patch_size, token_ids))


def is_image(pixel_values_videos: torch.Tensor) -> bool:
    """Whether the input counts as images: (B, C, H, W), or videos (B, 1, C, H, W) of one frame."""
    return pixel_values_videos.ndim == 4 or (pixel_values_videos.ndim == 5 and pixel_values_videos.shape[1] == 1)


class VJEPA2ModalityEmbeddings(nn.Module):
    """Base of the modules that add a learned vector to all tokens: one to those of images, another to videos'."""

    def __init__(self, config: VJEPA2Config, hidden_size: int):
        super().__init__()
        self.config = config
        if config.use_modality_embeddings:
            self.img_mod_embed = nn.Parameter(torch.zeros(1, 1, hidden_size))
            self.video_mod_embed = nn.Parameter(torch.zeros(1, 1, hidden_size))

    def add_modality(self, tokens: torch.Tensor, image: bool) -> torch.Tensor:
        """Tokens (B, N, D) with the vector of their modality, or as they are if the model has none."""
        if not self.config.use_modality_embeddings:
            return tokens
        return tokens + (self.img_mod_embed if image else self.video_mod_embed).to(tokens.dtype)


class VJEPA2Embeddings(VJEPA2ModalityEmbeddings):
    """Videos to tokens. Positions enter later, by rotation."""

    def __init__(self, config: VJEPA2Config):
        super().__init__(config, config.hidden_size)
        self.patch_embeddings = VJEPA2PatchEmbeddings3D(config, config.tubelet_size)
        if config.use_image_patch_embedder:
            self.patch_embeddings_img = VJEPA2PatchEmbeddings3D(config, tubelet_size=1)

    def forward(
        self, pixel_values_videos: torch.Tensor, context_mask: Masks | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, Grid]:
        """Embed a whole video, or only the tokens of `context_mask`.

        Args:
            pixel_values_videos: (B, T, C, H, W), or images (B, C, H, W), which count as one frame. Without a patch
                embedding for images, one frame is repeated to fill a tubelet, so that an image has the features of a
                still clip of one tubelet.
            context_mask: (B, K) token numbers on the input's grid, or a list of M such tensors.

        Returns:
            Tokens (B, N, D) with their numbers (1, N), or (M·B, K, D) with (M·B, K); and the grid of the input.
        """
        image = is_image(pixel_values_videos)
        embed = self.patch_embeddings_img if image and self.config.use_image_patch_embedder else self.patch_embeddings
        video, grid = self._cut(pixel_values_videos, embed.tubelet_size)
        if context_mask is None:
            token_ids = torch.arange(grid.num_tokens, device=video.device)[None]
            return self.add_modality(embed(video, grid), image), token_ids, grid
        token_ids = join_masks("context_mask", context_mask, video, limit=grid.num_tokens)
        return self.add_modality(embed(video, grid, token_ids), image), token_ids, grid

    def _cut(self, video: torch.Tensor, tubelet_size: int) -> tuple[torch.Tensor, Grid]:
        """The input as a video (B, T, C, H, W) that tubelets divide, and its grid."""
        shape = tuple(video.shape)
        if video.ndim == 4:
            video = video[:, None]
        if video.ndim != 5 or video.shape[2] != self.config.in_chans:
            raise ValueError(
                f"Expected `pixel_values_videos` of shape (batch, frames, {self.config.in_chans}, height, width) or "
                f"(batch, {self.config.in_chans}, height, width), got {shape}. Video processors return this layout; "
                "otherwise move the channels before height and width."
            )
        if video.shape[0] == 0:
            raise ValueError(f"The batch is empty: `pixel_values_videos` has shape {shape}. Pass at least one video.")
        if video.shape[1] == 1:
            video = video.expand(-1, tubelet_size, -1, -1, -1)
        return cut_to_tubelets(video, tubelet_size, self.config.patch_size)


class Past:
    """What one attention layer saw before. A call leaves it as it is, so that it can be computed again.

    Args:
        key: rotated keys (B, N, heads, head_dim) of the tokens so far, if there are any.
        value: their values.

    Attributes:
        following: what it is after the call.
    """

    def __init__(self, key: torch.Tensor | None = None, value: torch.Tensor | None = None):
        self.key, self.value = key, value
        self.following: Past | None = None

    @property
    def num_tokens(self) -> int:
        return 0 if self.key is None else self.key.shape[1]

    def extend(self, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of all tokens so far."""
        if self.key is not None:
            key, value = torch.cat([self.key, key], dim=1), torch.cat([self.value, value], dim=1)
        self.following = Past(key, value)
        return key, value


class VJEPA2RopeAttention(nn.Module):
    """Self-attention with rotary positions on time, height and width."""

    is_causal = False

    def __init__(self, config: VJEPA2Config, hidden_size: int, num_heads: int):
        super().__init__()
        self.config = config
        self.head_dim = hidden_size // num_heads
        self.query = nn.Linear(hidden_size, hidden_size, bias=config.qkv_bias)
        self.key = nn.Linear(hidden_size, hidden_size, bias=config.qkv_bias)
        self.value = nn.Linear(hidden_size, hidden_size, bias=config.qkv_bias)
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        rotary: RotaryTable,
        mask: torch.Tensor | None = None,
        past: Past | None = None,
        output_attentions: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        heads = (*hidden_states.shape[:2], -1, self.head_dim)
        query = apply_rotary(self.query(hidden_states).view(heads), rotary)  # (B, N, heads, head_dim)
        key = apply_rotary(self.key(hidden_states).view(heads), rotary)
        value = self.value(hidden_states).view(heads)
        if past is not None:
            key, value = past.extend(key, value)
        attended, probabilities = attention(
            self,
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            scaling=self.head_dim**-0.5,
            mask=mask,
            dropout=self.config.attention_probs_dropout_prob,
            output_attentions=output_attentions,
        )
        return self.proj(attended), probabilities


class VJEPA2Layer(GradientCheckpointingLayer):
    """Pre-norm transformer block of encoder and predictors. `depth` counts from 1 and says how its weights start."""

    def __init__(
        self, config: VJEPA2Config, depth: int, hidden_size: int, num_heads: int, mlp_ratio: float, drop_path: float
    ):
        super().__init__()
        self.depth = depth
        self.norm1 = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.attention = VJEPA2RopeAttention(config, hidden_size, num_heads)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.mlp = Mlp(hidden_size, int(hidden_size * mlp_ratio), config.hidden_act)

    def forward(
        self,
        hidden_states: torch.Tensor,
        rotary: RotaryTable,
        mask: torch.Tensor | None = None,
        past: Past | None = None,
        output_attentions: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        attended, probabilities = self.attention(
            self.norm1(hidden_states), rotary=rotary, mask=mask, past=past, output_attentions=output_attentions
        )
        hidden_states = hidden_states + self.drop_path(attended)
        hidden_states = hidden_states + self.drop_path(self.mlp(self.norm2(hidden_states)))
        return hidden_states, probabilities


def rotary_for(
    config: VJEPA2Config,
    token_ids: torch.Tensor,
    grid: Grid,
    head_dim: int,
    dtype: torch.dtype,
    interpolate: bool = False,
) -> RotaryTable:
    """Rotary factors of tokens by their number on `grid`.

    The original of V-JEPA 2 lays an axis' angles out twice while it turns neighboring channels, an oversight that
    its weights were trained with: `src/models/utils/modules.py`, `rotate_queries_or_keys`. V-JEPA 2.1 has it mended.

    Args:
        config: its `use_rope_interleave` says which of the two it is.
        token_ids: (B or 1, N) integers.
        grid: the grid that they count.
        head_dim: channels of a head.
        dtype: of the factors.
        interpolate: spread rows and columns over those of a 256-pixel picture; time stays.
    """
    time, row, column = split_token_ids(token_ids, grid)
    if interpolate:
        last = 256 // config.patch_size - 1
        # With a single row or column, whose number is 0, the original divides 0 by 0.
        row, column = row * (last / max(grid.h - 1, 1)), column * (last / max(grid.w - 1, 1))
    pairing = "interleaved" if config.use_rope_interleave else "tiled"
    return rotary_table((time, row, column), head_dim, pairing=pairing, dtype=dtype)


class VJEPA2Encoder(nn.Module):
    """Tubelet embedding, rotary blocks, final norm; or a norm for each level of `config.hierarchical_layers`."""

    def __init__(self, config: VJEPA2Config):
        super().__init__()
        self.config = config
        self.embeddings = VJEPA2Embeddings(config)
        self.layer = nn.ModuleList(
            VJEPA2Layer(config, depth, config.hidden_size, config.num_attention_heads, config.mlp_ratio, rate)
            for depth, rate in enumerate(drop_path_rates(config.drop_path_rate, config.num_hidden_layers), start=1)
        )
        if config.hierarchical_layers is None:
            self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        else:
            self.norms_block = nn.ModuleList(
                nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) for _ in config.hierarchical_layers
            )

    def forward(
        self,
        pixel_values_videos: torch.Tensor,
        context_mask: Masks | None = None,
        out_layers: list[int] | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> VJEPA2EncoderOutput:
        """Encode the whole video, or only the tokens of `context_mask`, which then see nothing of the others.

        Args:
            pixel_values_videos: (B, T, C, H, W) or (B, C, H, W).
            context_mask: (B, K) token numbers on the input's grid, or a list of M such tensors.
            out_layers: blocks whose normalized output is wanted as well.
            output_hidden_states: see [`VideoPreTrainedModel`].
            output_attentions: see [`VideoPreTrainedModel`].
        """
        config = self.config
        hidden_states, token_ids, grid = self.embeddings(pixel_values_videos, context_mask=context_mask)
        head_dim = config.hidden_size // config.num_attention_heads
        rotary = rotary_for(
            config, token_ids, grid, head_dim, hidden_states.dtype, interpolate=config.interpolate_rope
        )
        wanted, levels = self._check_out_layers(out_layers), tuple(config.hierarchical_layers or ())

        records, normed = Records(hidden_states, output_hidden_states, output_attentions), {}
        for index, layer in enumerate(self.layer):
            hidden_states, probabilities = layer(hidden_states, rotary=rotary, output_attentions=output_attentions)
            records.add(hidden_states, probabilities)
            if index in wanted + levels:
                normed[index] = self._norm_of(index)(hidden_states)

        last = normed.get(len(self.layer) - 1)
        return VJEPA2EncoderOutput(
            last_hidden_state=self._final_norm(hidden_states) if last is None else last,
            hidden_states=records.hidden_states,
            attentions=records.attentions,
            out_layer_hidden_states=tuple(normed[index] for index in wanted) or None,
            hierarchical_hidden_state=torch.cat([normed[index] for index in levels], dim=-1) if levels else None,
            grid=grid,
        )

    @property
    def _final_norm(self) -> nn.LayerNorm:
        return self.layernorm if self.config.hierarchical_layers is None else self.norms_block[-1]

    def _norm_of(self, index: int) -> nn.LayerNorm:
        """The norm for the output of a block."""
        levels = self.config.hierarchical_layers
        return self.layernorm if levels is None else self.norms_block[levels.index(index)]

    def _check_out_layers(self, out_layers: list[int] | tuple[int, ...] | None) -> tuple[int, ...]:
        """The block numbers as a tuple; a ValueError for numbers that no block has, or a block without a norm."""
        wanted = tuple(out_layers or ())
        if any(not 0 <= index < len(self.layer) for index in wanted):
            raise ValueError(
                f"`out_layers` counts encoder blocks from 0 to {len(self.layer) - 1}, got {list(wanted)}."
            )
        levels = self.config.hierarchical_layers
        if levels is not None and not set(wanted) <= set(levels):
            raise ValueError(
                f"`out_layers` must be among `config.hierarchical_layers` ({levels}), got {list(wanted)}: no other "
                "block has a norm for its output. `output_hidden_states` gives all of them without a norm."
            )
        return wanted


class VJEPA2PredictorEmbeddings(VJEPA2ModalityEmbeddings):
    """Brings context tokens to the predictor's width and puts a mask token in the place of every target."""

    def __init__(self, config: VJEPA2Config):
        super().__init__(config, config.pred_hidden_size)
        self.predictor_embeddings = self._embedder(config)
        self.mask_tokens = nn.Parameter(torch.zeros(config.pred_num_mask_tokens, 1, 1, config.pred_hidden_size))

    @staticmethod
    def _embedder(config: VJEPA2Config) -> nn.Module:
        """From one level of the encoder to the predictor's width by a linear layer, from several by an MLP."""
        if config.num_distillation_outputs == 1:
            return nn.Linear(config.hidden_size, config.pred_hidden_size)
        return nn.Sequential(
            nn.Linear(config.num_distillation_outputs * config.hidden_size, config.hidden_size),
            ACT2FN[config.hidden_act],
            nn.Linear(config.hidden_size, config.pred_hidden_size),
        )

    def forward(
        self, context: torch.Tensor, num_targets: int, mask_index: int = 1, image: bool = False
    ) -> torch.Tensor:
        context = self.predictor_embeddings(context)  # (M·B, K, P)
        mask_token = self.mask_tokens[mask_index % self.mask_tokens.shape[0]]  # (1, 1, P)
        targets = mask_token.to(context.dtype).expand(context.shape[0], num_targets, -1)
        return self.add_modality(torch.cat([context, targets], dim=1), image)


def predictor_layers(config: VJEPA2Config) -> nn.ModuleList:
    """The blocks of a predictor, V-JEPA 2's or 2-AC's."""
    width, heads = config.pred_hidden_size, config.pred_num_attention_heads
    rates = drop_path_rates(config.drop_path_rate, config.pred_num_hidden_layers)
    return nn.ModuleList(
        VJEPA2Layer(config, depth, width, heads, config.pred_mlp_ratio, rate)
        for depth, rate in enumerate(rates, start=1)
    )


def predicted_size(config: VJEPA2Config) -> int:
    """Channels of what the predictor predicts."""
    return config.num_distillation_outputs * (config.teacher_embed_dim or config.hidden_size)


class VJEPA2Predictor(nn.Module):
    """Predicts the encoder's features at target positions from its features at context positions."""

    def __init__(self, config: VJEPA2Config):
        super().__init__()
        self.config = config
        self.embeddings = VJEPA2PredictorEmbeddings(config)
        self.layer = predictor_layers(config)
        self.layernorm = nn.LayerNorm(config.pred_hidden_size, eps=config.layer_norm_eps)
        self.proj = nn.Linear(config.pred_hidden_size, predicted_size(config))
        if config.use_context_projection:
            self.proj_context = nn.Linear(config.pred_hidden_size, predicted_size(config))

    def forward(
        self,
        context: torch.Tensor,
        context_ids: torch.Tensor,
        target_ids: torch.Tensor,
        grid: Grid,
        mask_index: int = 1,
        return_all_tokens: bool = False,
        image: bool = False,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> VJEPA2WithMaskedInputPredictorOutput:
        """Predict.

        The original sorts context and target tokens by position before the blocks and undoes it after them. Blocks
        treat tokens as a set, positions being rotated in, so only `return_all_tokens` needs the order.

        Args:
            context: (B, K, D) features of the context tokens; with S' distillation outputs (B, K, S'·D).
            context_ids: (B, K) their numbers on `grid`.
            target_ids: (B, L) numbers of the tokens to predict; they may lie beyond the video's end.
            grid: the grid of the actual input.
            mask_index: which mask token stands for the targets, modulo their number.
            return_all_tokens: predict context and target tokens, sorted by position.
            image: whether the tokens are those of images.
            output_hidden_states: see [`VideoPreTrainedModel`].
            output_attentions: see [`VideoPreTrainedModel`].
        """
        config, num_context = self.config, context.shape[1]
        hidden_states = self.embeddings(
            context, num_targets=target_ids.shape[1], mask_index=mask_index, image=image
        )  # (B, K + L, P)
        token_ids, positions = torch.cat([context_ids, target_ids], dim=1), self._position_grid(grid)
        head_dim = config.pred_hidden_size // config.pred_num_attention_heads
        rotary = rotary_for(
            config, token_ids, positions, head_dim, hidden_states.dtype, interpolate=config.pred_interpolate_rope
        )

        records = Records(hidden_states, output_hidden_states, output_attentions)
        for layer in self.layer:
            hidden_states, probabilities = layer(hidden_states, rotary=rotary, output_attentions=output_attentions)
            records.add(hidden_states, probabilities)

        normed = self.layernorm(hidden_states)
        if return_all_tokens:
            wanted = select_tokens(normed, ascending_order(token_ids))
        else:
            wanted = normed[:, num_context:]
        output = VJEPA2WithMaskedInputPredictorOutput(
            last_hidden_state=self.proj(wanted),
            hidden_states=records.hidden_states,
            attentions=records.attentions,
        )
        if config.use_context_projection:
            output.context_predictions = self.proj_context(normed[:, :num_context])
        return output

    def _position_grid(self, grid: Grid) -> Grid:
        """The grid that token numbers are read on: the original's predictor knows that of its training crop only.

        Source: `src/models/predictor.py`, whose blocks are called without the sizes that the encoder's get.
        """
        side = self.config.crop_size // self.config.patch_size
        if self.config.pred_positions_from_input or (grid.h, grid.w) == (side, side):
            return grid
        if not torch.compiler.is_compiling():
            logger.warning_once(
                f"The predictor reads positions on the {side} × {side} grid of `config.crop_size`, as the original "
                f"does, but the input has {grid.h} × {grid.w} tokens a step. Set `config.pred_positions_from_input` "
                "to read them on the input's grid."
            )
        return Grid(grid.t, side, side)


class VJEPA2PreTrainedModel(VideoPreTrainedModel):
    """Weight initialization, loading and saving for all V-JEPA 2 models."""

    config_class = VJEPA2Config
    config: VJEPA2Config
    base_model_prefix = "vjepa2"
    main_input_name = "pixel_values_videos"
    input_modalities = ("video",)
    _no_split_modules = ["VJEPA2Layer", "PoolerSelfAttentionLayer", "PoolerCrossAttentionLayer"]

    @property
    def frames_per_clip(self) -> int:
        return self.config.frames_per_clip

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Truncated normals, biases 0; see [`init_residual`] for the layers that start smaller."""
        std = self.config.initializer_range
        if isinstance(module, (nn.Linear, nn.Conv3d)):
            init.trunc_normal_(module.weight, std=std)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, VJEPA2Layer):
            init_residual(std, module.depth, module.attention.proj, module.mlp.fc2)
        if isinstance(module, VJEPA2PredictorEmbeddings):
            if self.config.pred_zero_init_mask_tokens:
                init.zeros_(module.mask_tokens)
            else:
                init.trunc_normal_(module.mask_tokens, std=std)
        if isinstance(module, VJEPA2ModalityEmbeddings) and self.config.use_modality_embeddings:
            init.normal_(module.img_mod_embed, std=1e-6)
            init.normal_(module.video_mod_embed, std=1e-6)


class VJEPA2Model(VJEPA2PreTrainedModel):
    """The encoder and, unless `config.use_predictor` is off, the predictor."""

    _keys_to_ignore_on_load_unexpected = [r"^teacher\."]  # of pre-training

    def __init__(self, config: VJEPA2Config, add_predictor: bool = True):
        super().__init__(config)
        self.encoder = VJEPA2Encoder(config)
        self.predictor = VJEPA2Predictor(config) if add_predictor and config.use_predictor else None
        if self.predictor is None:
            self._keys_to_ignore_on_load_unexpected = [r"^predictor\.", r"^teacher\."]
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: torch.Tensor,
        context_mask: Masks | None = None,
        target_mask: Masks | None = None,
        skip_predictor: bool = False,
        mask_index: int = 1,
        return_all_tokens: bool = False,
        return_target_hidden_state: bool = False,
        out_layers: list[int] | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> VJEPA2WithMaskedInputModelOutput:
        r"""Encode a video and predict the features of its target tokens.

        Args:
            pixel_values_videos: (B, T, C, H, W), or images (B, C, H, W).
            context_mask: (B, K) integers: numbers, on the input's own grid, of the tokens that the encoder sees, or a
                list of M such tensors, each predicted on its own. By default it sees all.
            target_mask: (B, L) integers: numbers of the tokens to predict, or a list as long as that of
                `context_mask`. By default all. With one of the two masks, the other means all tokens for each of its
                selections.
            skip_predictor: leave the predictor out, for features alone.
            mask_index: which mask token stands for the targets, modulo their number.
            return_all_tokens: let the predictor return context and target tokens, sorted by position. Predictors with
                a projection for context tokens return these in `context_predictions` instead, without being asked.
            return_target_hidden_state: compute `target_hidden_state` also where it costs a second pass, over the
                whole video.
            out_layers: encoder blocks, from 0, whose normalized output is wanted as well.
            output_hidden_states: see [`VideoPreTrainedModel`]; of encoder and predictor.
            output_attentions: see [`VideoPreTrainedModel`]; of encoder and predictor.

        Returns:
            [`VJEPA2WithMaskedInputModelOutput`].

        Raises:
            ValueError: input or masks of the wrong shape, targets without a predictor, or `return_all_tokens` for a
                predictor that has two projections.
        """
        flags = self._flags(output_hidden_states, output_attentions)
        self._check_wishes(target_mask, skip_predictor, return_all_tokens)
        encoded = self.encoder(pixel_values_videos, context_mask=context_mask, out_layers=out_layers, **flags)
        features = self.predictor_input(encoded)

        predicted = None
        if self.predictor is not None and not skip_predictor:
            context, context_ids, target_ids = pair_masks(
                pixel_values_videos, features, encoded.grid, context_mask, target_mask
            )
            predicted = self.predictor(
                context,
                context_ids=context_ids,
                target_ids=target_ids,
                grid=encoded.grid,
                mask_index=mask_index,
                return_all_tokens=return_all_tokens,
                image=is_image(pixel_values_videos),
                **flags,
            )
            whole = features if context_mask is None else None
            if whole is None and return_target_hidden_state:
                whole = self.predictor_input(self.encoder(pixel_values_videos))
            predicted.target_hidden_state = self._target_features(whole, target_ids, target_mask)
        return VJEPA2WithMaskedInputModelOutput(
            last_hidden_state=encoded.last_hidden_state,
            masked_hidden_state=features,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            predictor_output=predicted,
            out_layer_hidden_states=encoded.out_layer_hidden_states,
            hierarchical_hidden_state=encoded.hierarchical_hidden_state,
        )

    def _check_wishes(self, target_mask: Masks | None, skip_predictor: bool, return_all_tokens: bool) -> None:
        """Raise for what this model's predictor, or one that it lacks, cannot do."""
        if return_all_tokens and self.config.use_context_projection:
            raise ValueError(
                "`return_all_tokens` projects all tokens alike, but this predictor projects context tokens by a layer "
                "of their own (`config.use_context_projection`): read `predictor_output.context_predictions`."
            )
        if target_mask is not None and self.predictor is None and not skip_predictor:
            raise ValueError(
                "`target_mask` asks for predictions, but this model has no predictor (`config.use_predictor` is off). "
                "Load a checkpoint that has one, or leave `target_mask` out."
            )

    def predictor_input(self, encoded: VJEPA2EncoderOutput) -> torch.Tensor:
        """The features that the predictor reads and predicts: the last levels, side by side (B, N, S'·D)."""
        if self.config.num_distillation_outputs == 1:
            return encoded.last_hidden_state
        width = self.config.num_distillation_outputs * self.config.hidden_size
        return encoded.hierarchical_hidden_state[..., -width:]

    def get_input_embeddings(self) -> VJEPA2PatchEmbeddings3D:
        return self.encoder.embeddings.patch_embeddings

    def get_vision_features(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        """The encoder's features.

        Args:
            pixel_values_videos: (B, T, C, H, W), or images (B, C, H, W).

        Returns:
            (B, N, D), or those of all levels side by side, (B, N, S·D), with `config.hierarchical_layers`.
        """
        output = self(pixel_values_videos, skip_predictor=True, return_dict=True)
        levels = output.hierarchical_hidden_state
        return output.last_hidden_state if levels is None else levels

    @classmethod
    def for_features(cls, config: VJEPA2Config) -> VJEPA2Config:
        """The same configuration without the predictor."""
        config = copy.deepcopy(config)
        config.use_predictor = False
        return config

    @property
    def frames_per_token(self) -> int:
        return self.config.tubelet_size

    def get_feature_map(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        """The features of [`~VJEPA2Model.get_vision_features`] on their grid.

        Args:
            pixel_values_videos: (B, T, C, H, W), or images (B, C, H, W).

        Returns:
            (B, t, h, w, D).
        """
        features = self.get_vision_features(pixel_values_videos)
        return on_grid(features, pixel_values_videos, self.config.patch_size)

    @staticmethod
    def _target_features(
        whole: torch.Tensor | None, target_ids: torch.Tensor, target_mask: Masks | None
    ) -> torch.Tensor | None:
        """Features of the target tokens out of those of the whole video, where these are known.

        Without any for targets beyond its end: `None` where the masks are on the CPU, elsewhere NaN in their place,
        since the GPU would have to be waited for.
        """
        if whole is None:
            return None
        if target_mask is None:
            return whole if target_ids.shape[0] == whole.shape[0] else select_tokens(whole, target_ids)
        last = whole.shape[1] - 1
        if not torch.compiler.is_compiling() and highest_on_cpu(target_mask, last) > last:
            return None
        features = select_tokens(whole, target_ids.clamp(max=last))
        return features.masked_fill((target_ids > last)[..., None], torch.nan)


__all__ = [
    "VJEPA2Model",
    "VJEPA2PreTrainedModel",
]
