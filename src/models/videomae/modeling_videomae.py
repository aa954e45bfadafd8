"""VideoMAE: a video encoder and its classifier. `modeling_videomae_pretraining.py` has the decoder.

Paper: https://arxiv.org/abs/2203.12602. Original code: MCG-NJU/VideoMAE at 14ef8d85, `modeling_pretrain.py` and
`modeling_finetune.py`.

Shapes: B videos of T frames with C channels and H × W pixels; N tokens on a grid of t × h × w, of which V are visible;
D channels of a token.
"""

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import log, sqrt
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPooling, ImageClassifierOutput
from transformers.utils import SAFE_WEIGHTS_NAME, cached_file, can_return_tuple

from vidformers.layers.attention import attention
from vidformers.layers.block import DropPath, Records, drop_path_rates
from vidformers.layers.cpu import runs_in_blocks, transform_in_blocks
from vidformers.layers.patchify import Grid, cut_to_tubelets, embed_tubelets, embed_video, tubelets_of

from ..hub import hub_arguments
from ..pretrained import ClassifiesViews, VideoPreTrainedModel
from .configuration_videomae import VideoMAEConfig, is_of_remote_code
from .masking_videomae import split_tokens
from .positions_videomae import VideoMAEPositions, alternating_sinusoids


CLASSIFIER_INITIAL_SCALE = 0.001
"""Factor of the classifier's initial weights: `--init_scale` of the original's `run_class_finetuning.py`."""

FIRST_LOG_SCALE, LARGEST_LOG_SCALE = log(10), 4.6052
"""Logarithm of the factor of scores under `cos_attn`: where it begins, and where it is cut, near log(100)."""

BIAS_SPELLINGS = {
    r"attention\.attention\.query\.bias": "attention.attention.q_bias",
    r"attention\.attention\.value\.bias": "attention.attention.v_bias",
}


class VideoMAEPatchEmbeddings(nn.Module):
    """Holds the tubelet projection under the name that it has on disk."""

    def __init__(self, config: VideoMAEConfig):
        super().__init__()
        self.config = config
        kernel = (config.tubelet_size, *config.patch_height_width)
        self.projection = nn.Conv3d(config.num_channels, config.hidden_size, kernel_size=kernel, stride=kernel)

    def forward(self, video: torch.Tensor, grid: Grid, token_ids: torch.Tensor | None = None) -> torch.Tensor:
        """Embed all tokens of videos (B, T, C, H, W), or those of `token_ids` (B, K): (B, N or K, D)."""
        if token_ids is None:
            return embed_video(self.projection, video)
        sides = self.config.tubelet_size, self.config.patch_height_width
        return embed_tubelets(self.projection, tubelets_of(video, grid, *sides, token_ids))


class VideoMAEEmbeddings(nn.Module):
    """Videos to tokens with positions."""

    def __init__(self, config: VideoMAEConfig):
        super().__init__()
        self.config = config
        self.patch_embeddings = VideoMAEPatchEmbeddings(config)
        self.position_embeddings = VideoMAEPositions(config, config.hidden_size, config.use_learnable_pos_emb)

    def forward(
        self, video: torch.Tensor, grid: Grid, visible_ids: torch.Tensor | None, interpolate: bool
    ) -> torch.Tensor:
        """Embed all tokens, or only the visible ones.

        Args:
            video: (B, T, C, H, W), divisible into tubelets.
            grid: its grid.
            visible_ids: (B, V) token numbers, or `None` for all.
            interpolate: resize the positions to the grid.

        Returns:
            (B, N, D), or (B, V, D) with `visible_ids`.
        """
        positions = self.position_embeddings(grid, interpolate, video.device)
        if visible_ids is not None:
            positions = positions[0, visible_ids]  # (B, V, D)
        tokens = self.patch_embeddings(video, grid, visible_ids)
        return tokens + positions.to(tokens.dtype)

    def cut(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, Grid]:
        """Check the input (B, T, C, H, W) and cut it to whole tubelets: the video and its grid."""
        shape, config = tuple(pixel_values.shape), self.config
        if config.use_pooler and len(shape) == 5 and shape[1] == config.num_channels != shape[2]:
            # The code in directories of VideoMAE V2 takes (B, C, T, H, W), and their cards turn videos around for it.
            pixel_values = pixel_values.transpose(1, 2)
            shape = tuple(pixel_values.shape)
        if pixel_values.ndim != 5 or shape[2] != config.num_channels:
            raise ValueError(
                f"Expected `pixel_values` of shape (batch, frames, {config.num_channels}, height, width), got "
                f"{shape}. Video processors return this layout; otherwise move channels before height and width."
            )
        if shape[0] == 0:
            raise ValueError(f"The batch is empty: `pixel_values` has shape {shape}. Pass at least one video.")
        return cut_to_tubelets(pixel_values, config.tubelet_size, config.patch_height_width)


@dataclass(frozen=True)
class BlockSize:
    """Sizes of the blocks of encoder or decoder."""

    hidden_size: int
    intermediate_size: int
    num_heads: int


class VideoMAESelfAttention(nn.Module):
    """Self-attention. Queries and values may have biases, keys have none.

    The biases have the names that they have on disk; in memory transformers calls them `query.bias` and `value.bias`,
    which `load_state_dict` and `from_pretrained` take as well.
    """

    is_causal = False

    def __init__(self, config: VideoMAEConfig, size: BlockSize):
        super().__init__()
        self.config = config
        self.head_dim = size.hidden_size // size.num_heads
        self.query = nn.Linear(size.hidden_size, size.hidden_size, bias=False)
        self.key = nn.Linear(size.hidden_size, size.hidden_size, bias=False)
        self.value = nn.Linear(size.hidden_size, size.hidden_size, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(size.hidden_size)) if config.qv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(size.hidden_size)) if config.qv_bias else None
        self.scale = None
        if config.cos_attn:
            self.scale = nn.Parameter(torch.full((size.num_heads, 1, 1), FIRST_LOG_SCALE))

    def _load_from_state_dict(self, state_dict, prefix, *args):
        """Load biases under the names that they have in memory in transformers, too.

        Args:
            state_dict: tensors by name. `query.bias` and `value.bias`, (D,) each, are renamed in it.
            prefix: what stands before the names of this layer in `state_dict`.
            *args: what torch's method takes after these two, passed on.
        """
        for ours, theirs in (("q_bias", "query.bias"), ("v_bias", "value.bias")):
            if prefix + theirs in state_dict:
                state_dict[prefix + ours] = state_dict.pop(prefix + theirs)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(
        self, hidden_states: torch.Tensor, output_attentions: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        query, key, value = self.query(hidden_states), self.key(hidden_states), self.value(hidden_states)
        if self.q_bias is not None:
            query, value = query + self.q_bias, value + self.v_bias
        query, key, value = (
            states.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (B, heads, N, head_dim)
            for states in (query, key, value)
        )
        scaling = self.head_dim**-0.5
        if self.scale is not None:
            query, key, scaling = *self._directions(query, key), 1.0
        return attention(
            self,
            query,
            key,
            value,
            scaling=scaling,
            dropout=self.config.attention_probs_dropout_prob,
            output_attentions=output_attentions,
        )

    def _directions(self, query: torch.Tensor, key: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries as long as the factor of their head, keys of length one, so that every backend can multiply them.

        Source: OpenGVLab/VideoMAEv2 at 29eab1e8, `CosAttention` of `modeling_finetune.py`.
        """
        factor = self.scale.float().clamp(max=LARGEST_LOG_SCALE).exp()  # (heads, 1, 1)
        directions = (nn.functional.normalize(states.float(), dim=-1) for states in (query, key))
        query_direction, key_direction = directions
        return (query_direction * factor).to(query.dtype), key_direction.to(key.dtype)


class VideoMAEDense(nn.Module):
    """A linear layer with dropout after it, under the name that it has on disk."""

    def __init__(self, in_features: int, out_features: int, dropout: float):
        super().__init__()
        self.dense = nn.Linear(in_features, out_features)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.dense(hidden_states))


class VideoMAEIntermediate(nn.Module):
    """The first half of the MLP."""

    def __init__(self, size: BlockSize, activation: str):
        super().__init__()
        self.dense = nn.Linear(size.hidden_size, size.intermediate_size)
        self.activation = ACT2FN[activation]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.activation(self.dense(hidden_states))


class VideoMAEAttention(nn.Module):
    """Self-attention and its output projection."""

    def __init__(self, config: VideoMAEConfig, size: BlockSize):
        super().__init__()
        self.attention = VideoMAESelfAttention(config, size)
        self.output = VideoMAEDense(size.hidden_size, size.hidden_size, config.hidden_dropout_prob)

    def forward(
        self, hidden_states: torch.Tensor, output_attentions: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        attended, probabilities = self.attention(hidden_states, output_attentions=output_attentions)
        return self.output(attended), probabilities


class VideoMAELayer(GradientCheckpointingLayer):
    """Pre-norm transformer block of encoder and decoder."""

    def __init__(self, config: VideoMAEConfig, size: BlockSize, drop_path: float):
        super().__init__()
        self.layernorm_before = nn.LayerNorm(size.hidden_size, eps=config.layer_norm_eps)
        self.attention = VideoMAEAttention(config, size)
        self.layernorm_after = nn.LayerNorm(size.hidden_size, eps=config.layer_norm_eps)
        self.intermediate = VideoMAEIntermediate(size, config.hidden_act)
        self.output = VideoMAEDense(size.intermediate_size, size.hidden_size, config.hidden_dropout_prob)
        self.drop_path = DropPath(drop_path)
        if config.layer_scale_init_value > 0:
            self.lambda_1 = nn.Parameter(torch.ones(size.hidden_size))
            self.lambda_2 = nn.Parameter(torch.ones(size.hidden_size))
        else:
            self.lambda_1 = self.lambda_2 = None

    def forward(
        self, hidden_states: torch.Tensor, output_attentions: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        normed = self.layernorm_before(hidden_states)
        branch, probabilities = self.attention(normed, output_attentions=output_attentions)
        hidden_states = hidden_states + self.drop_path(self._scaled(branch, self.lambda_1))
        branch = self._transform(self.layernorm_after(hidden_states))
        hidden_states = hidden_states + self.drop_path(self._scaled(branch, self.lambda_2))
        return hidden_states, probabilities

    def _transform(self, tokens: torch.Tensor) -> torch.Tensor:
        """The MLP, whose halves are modules of their own on disk."""
        expand, contract = self.intermediate, self.output
        is_dropped = self.training and contract.dropout.p > 0
        if not is_dropped and runs_in_blocks(tokens, expand, contract):
            return transform_in_blocks(tokens, expand.dense, expand.activation, contract.dense)
        return contract(expand(tokens))

    @staticmethod
    def _scaled(branch: torch.Tensor, factors: torch.Tensor | None) -> torch.Tensor:
        return branch if factors is None else factors * branch


def videomae_layers(config: VideoMAEConfig, size: BlockSize, num_layers: int) -> nn.ModuleList:
    """The blocks of encoder or decoder, with stochastic depth rising along them."""
    return nn.ModuleList(
        VideoMAELayer(config, size, rate) for rate in drop_path_rates(config.drop_path_rate, num_layers)
    )


class VideoMAEEncoder(nn.Module):
    """The encoder's blocks."""

    def __init__(self, config: VideoMAEConfig):
        super().__init__()
        size = BlockSize(config.hidden_size, config.intermediate_size, config.num_attention_heads)
        self.layer = videomae_layers(config, size, config.num_hidden_layers)

    def forward(
        self, hidden_states: torch.Tensor, output_hidden_states: bool = False, output_attentions: bool = False
    ) -> BaseModelOutput:
        """Transform tokens (B, N, D); see [`VideoPreTrainedModel`] for the two flags."""
        records = Records(hidden_states, output_hidden_states, output_attentions)
        for layer in self.layer:
            hidden_states, probabilities = layer(hidden_states, output_attentions=output_attentions)
            records.add(hidden_states, probabilities)
        return BaseModelOutput(
            last_hidden_state=hidden_states, hidden_states=records.hidden_states, attentions=records.attentions
        )


class VideoMAEPreTrainedModel(VideoPreTrainedModel):
    """Weight initialization, loading and saving for all VideoMAE models."""

    config_class = VideoMAEConfig
    config: VideoMAEConfig
    base_model_prefix = "videomae"
    main_input_name = "pixel_values"
    input_modalities = ("video",)
    _no_split_modules = ["VideoMAEEmbeddings", "VideoMAELayer"]
    # Whether linear layers start as in the original's pre-training, by fan in and fan out, or as in its fine-tuning.
    is_initialized_by_fans = False

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *args: Any,
        key_mapping: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Load a directory, in whichever of the two spellings the biases of queries and values are stored.

        Directories of VideoMAE V2 with remote code load too, without running it.
        """
        path = pretrained_model_name_or_path
        if path is not None and is_of_remote_code(_settings_of(path, kwargs)):
            return cls._from_remote_code(path, *args, **kwargs)
        loaded = super().from_pretrained(path, *args, key_mapping={**BIAS_SPELLINGS, **(key_mapping or {})}, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        # transformers would undo at saving what it renamed at loading.
        renamed = getattr(model, "_weight_conversions", None) or []
        model._weight_conversions = [each for each in renamed if not set(each.source_patterns) & set(BIAS_SPELLINGS)]
        return loaded

    @classmethod
    def _from_remote_code(cls, path: str | os.PathLike, *args: Any, config: Any = None, **kwargs: Any) -> Any:
        """Load a directory OpenGVLab/VideoMAEv2-*, whose tensors have the original's names."""
        from vidformers.conversion.videomae.hub import read_hub_weights

        place, dtype = hub_arguments(kwargs), kwargs.get("dtype", kwargs.get("torch_dtype"))
        kwargs = {name: value for name, value in kwargs.items() if name not in {*place, "dtype", "torch_dtype"}}
        if not isinstance(config, PreTrainedConfig):
            config, kwargs = cls.config_class.from_pretrained(
                config or path, return_unused_kwargs=True, **place, **kwargs
            )
        file = cached_file(path, SAFE_WEIGHTS_NAME, **place)
        config, tensors = read_hub_weights(file, cls, config)
        loaded = super().from_pretrained(None, *args, config=config, state_dict=tensors, dtype=dtype, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.name_or_path = model.config.name_or_path = str(path)
        return loaded

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """As the original starts pre-training or, for all other models, fine-tuning.

        Source: `modeling_pretrain.py` and `modeling_finetune.py`. Both leave the patch embedding, and pre-training
        leaves `encoder_to_decoder`, as PyTorch initializes such layers.
        """
        std = self.config.initializer_range
        if isinstance(module, nn.Conv3d):
            init.kaiming_uniform_(module.weight, a=sqrt(5))
            bound = 1 / sqrt(module.weight[0].numel())
            init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.Linear):
            if self.is_initialized_by_fans:
                init.xavier_uniform_(module.weight)
            else:
                init.trunc_normal_(module.weight, std=std)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, VideoMAESelfAttention):
            self._init_attention(module)
        elif isinstance(module, VideoMAELayer) and module.lambda_1 is not None:
            init.constant_(module.lambda_1, self.config.layer_scale_init_value)
            init.constant_(module.lambda_2, self.config.layer_scale_init_value)
        elif isinstance(module, VideoMAEPositions) and module.is_learned:
            init.trunc_normal_(module.table, std=std)
        elif isinstance(module, VideoMAEPositions):
            init.copy_(module.table, alternating_sinusoids(*module.table.shape[1:], module.table.device))

    def _init_attention(self, attention: VideoMAESelfAttention) -> None:
        """The original has the three projections in one layer, of three times the fan out of each."""
        if self.is_initialized_by_fans:
            for projection in (attention.query, attention.key, attention.value):
                init.xavier_uniform_(projection.weight, gain=sqrt(0.5))
        if attention.q_bias is not None:
            init.zeros_(attention.q_bias)
            init.zeros_(attention.v_bias)
        if attention.scale is not None:
            init.constant_(attention.scale, FIRST_LOG_SCALE)


def _settings_of(path: str | os.PathLike, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a directory as they stand there; none where it has no configuration."""
    try:
        return PreTrainedConfig.get_config_dict(path, **hub_arguments(arguments))[0]
    except (OSError, ValueError):
        return {}


class VideoMAEModel(VideoMAEPreTrainedModel):
    """The encoder.

    Its output is normalized in a model for pre-training and wherever `config.use_mean_pooling` is off; the classifier
    normalizes the mean of the tokens instead, and so does the pooled output that `config.use_pooler` adds.

    Args:
        config: sizes and options.
        for_pretraining: whether it starts as in the original's pre-training.
        has_pooler: whether it may have a pooled output; models with a head have none.
    """

    def __init__(self, config: VideoMAEConfig, for_pretraining: bool = False, has_pooler: bool = True):
        super().__init__(config)
        self.is_initialized_by_fans = for_pretraining
        self.has_pooler = has_pooler and config.use_pooler
        self.embeddings = VideoMAEEmbeddings(config)
        self.encoder = VideoMAEEncoder(config)
        has_norm = not config.use_mean_pooling or (for_pretraining and config.use_pretraining_norm)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if has_norm else None
        self.fc_norm = None
        if self.has_pooler and config.use_mean_pooling:
            self.fc_norm = nn.LayerNorm(config.hidden_size, eps=config.head_layer_norm_eps)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        bool_masked_pos: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        visible_ids: torch.Tensor | None = None,
    ) -> BaseModelOutputWithPooling:
        r"""Encode videos, all their tokens or the visible ones.

        Args:
            pixel_values: (B, T, C, H, W). With `config.use_pooler` also (B, C, T, H, W), as cards of VideoMAE V2 have
                it, unless T is C.
            bool_masked_pos: (B, N), true or 1 where a token is masked, as many in every video; or (B, K) integers, the
                numbers of the masked tokens. Masked tokens are not even embedded.
            interpolate_pos_encoding: resize the trained positions to an input of another size.
            output_hidden_states: see [`VideoPreTrainedModel`].
            output_attentions: see [`VideoPreTrainedModel`].
            visible_ids: (B, V), the numbers of the visible tokens, in the place of a mask; they are not checked.

        Returns:
            `last_hidden_state` (B, N, D), or (B, V, D) of the visible tokens in the order of their numbers; with
            `config.use_pooler` also `pooler_output` (B, D), `fc_norm` of the mean or the first of the normalized
            tokens; and the records.

        Raises:
            ValueError: input or mask of the wrong shape, different counts in a mask, or an input of another size than
                the configured one without a way to get its positions.
        """
        video, grid = self.embeddings.cut(pixel_values)
        if bool_masked_pos is not None:
            visible_ids, _ = split_tokens(bool_masked_pos, video, grid)
        tokens = self.embeddings(video, grid, visible_ids=visible_ids, interpolate=interpolate_pos_encoding)
        encoded = self.encoder(tokens, **self._flags(output_hidden_states, output_attentions))
        tokens = encoded.last_hidden_state  # (B, N or V, D)
        if self.layernorm is not None:
            tokens = self.layernorm(tokens)
        return BaseModelOutputWithPooling(
            last_hidden_state=tokens,
            pooler_output=pooled(tokens, self.fc_norm) if self.has_pooler else None,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )

    @classmethod
    def for_classification(cls, config: VideoMAEConfig) -> VideoMAEConfig:
        """The same configuration with the mean of the tokens in front of the classifier, as the original trains it.

        Directories of pre-trained models have `use_mean_pooling` off, and the first token says nothing of a video.
        """
        config = copy.deepcopy(config)
        config.use_mean_pooling = True
        return config

    @property
    def frames_per_clip(self) -> int:
        return self.config.num_frames

    @property
    def frames_per_token(self) -> int:
        return self.config.tubelet_size

    def get_feature_map(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        """The encoder's features, with the trained positions resized or, as configured, those of the input's size.

        Args:
            pixel_values_videos: (B, T, C, H, W).

        Returns:
            (B, t, h, w, D).
        """
        _, grid = self.embeddings.cut(pixel_values_videos)
        interpolate = not self.config.use_input_positions
        encoded = self(pixel_values_videos, interpolate_pos_encoding=interpolate, return_dict=True)
        return encoded.last_hidden_state.unflatten(1, grid)

    def get_input_embeddings(self) -> VideoMAEPatchEmbeddings:
        return self.embeddings.patch_embeddings


def pooled(tokens: torch.Tensor, norm: nn.Module | None) -> torch.Tensor:
    """One vector of the tokens (B, N, D): their mean, normalized, or without a norm the first of them; (B, D)."""
    return tokens[:, 0] if norm is None else norm(tokens.mean(1))


class VideoMAEForVideoClassification(ClassifiesViews, VideoMAEPreTrainedModel):
    """The encoder with a linear classifier on the mean of its tokens or, with `use_mean_pooling` off, on the first."""

    def __init__(self, config: VideoMAEConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.videomae = VideoMAEModel(config, has_pooler=False)
        self.fc_norm = None
        if config.use_mean_pooling:
            self.fc_norm = nn.LayerNorm(config.hidden_size, eps=config.head_layer_norm_eps)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels) if config.num_labels > 0 else nn.Identity()
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self and self.config.num_labels > 0:
            std = CLASSIFIER_INITIAL_SCALE * self.config.initializer_range
            init.trunc_normal_(self.classifier.weight, std=std)

    def pool(self, tokens: torch.Tensor) -> torch.Tensor:
        """What the classifier reads of the encoder's output (B, N, D): (B, D)."""
        return pooled(tokens, self.fc_norm)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> ImageClassifierOutput:
        r"""Classify videos.

        Args:
            pixel_values: (B, T, C, H, W).
            labels: (B,) class numbers, or what `config.problem_type` says.
            interpolate_pos_encoding: resize the trained positions to an input of another size.
            output_hidden_states: see [`VideoPreTrainedModel`].
            output_attentions: see [`VideoPreTrainedModel`].

        Returns:
            `logits` (B, num_labels), `loss` when labels were given, and the records.
        """
        flags = self._flags(output_hidden_states, output_attentions)
        encoded = self.videomae(
            pixel_values, interpolate_pos_encoding=interpolate_pos_encoding, return_dict=True, **flags
        )
        logits = self.classifier(self.pool(encoded.last_hidden_state))
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        return ImageClassifierOutput(
            loss=loss, logits=logits, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )


__all__ = [
    "VideoMAEForVideoClassification",
    "VideoMAEModel",
    "VideoMAEPreTrainedModel",
]
