"""VideoMAE: a video encoder trained by reconstructing hidden tubelets, its decoder, and a classifier.

Paper: https://arxiv.org/abs/2203.12602. Original code: MCG-NJU/VideoMAE at 14ef8d85, `modeling_pretrain.py`,
`modeling_finetune.py` and `engine_for_pretraining.py`.

Shapes: B videos of T frames with C channels and H × W pixels; N tokens on a grid of t × h × w, each a tubelet of
s frames and p × p pixels, P = s·p·p·C values; K tokens are masked and V = N - K visible; D channels of a token.
"""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput, ImageClassifierOutput
from transformers.utils import ModelOutput, can_return_tuple

from ...layers.attention import attention
from ...layers.block import DropPath, StackOutput, activate, drop_path_rates, in_token_blocks, run_layers
from ...layers.linear import Linear
from ...layers.patchify import Grid, TubeletProjection, cut_to_tubelets, tubelets_of
from ...layers.positions import alternating_sinusoids, resize_position_volume
from ..pretrained import VideoPreTrainedModel
from .configuration_videomae import VideoMAEConfig
from .masking_videomae import split_tokens


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CLASSIFIER_INITIAL_SCALE = 0.001
"""Factor of the classifier's initial weights: `--init_scale` of the original's `run_class_finetuning.py`."""

BIAS_SPELLINGS = {
    r"attention\.attention\.query\.bias": "attention.attention.q_bias",
    r"attention\.attention\.value\.bias": "attention.attention.v_bias",
}


@dataclass
class VideoMAEForPreTrainingOutput(ModelOutput):
    """What [`VideoMAEForPreTraining`] computes.

    Args:
        loss: scalar in float32, the mean squared error over the masked tokens.
        logits: (B, K, P), the predicted pixels of the masked tokens, by frame, row, column and channel; in ascending
            order of the tokens, or in that of the numbers that were given.
        hidden_states: of the encoder, (B, V, D): the input of every block and the output of the last one, before the
            norm.
        attentions: (B, heads, V, V) of every encoder block.
        decoder_hidden_states: of the decoder, (B, N, D): likewise; visible tokens first, then masked ones.
        decoder_attentions: (B, heads, N, N) of every decoder block.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    decoder_hidden_states: tuple[torch.Tensor, ...] | None = None
    decoder_attentions: tuple[torch.Tensor, ...] | None = None


class VideoMAEPositions(nn.Module):
    """Positions of the tokens on the trained grid, in float32: a table of sines and cosines, or a stored parameter.

    The table is built once, stays in float32 whatever the model's dtype, and is built anew where a model leaves the
    meta device.
    """

    def __init__(self, config: VideoMAEConfig, width: int, is_learned: bool = False):
        super().__init__()
        self.grid = Grid(*config.token_grid)
        self.config = config
        self.is_learned = is_learned
        shape = (1, self.grid.num_tokens, width)
        if is_learned:
            self.table = nn.Parameter(torch.zeros(shape), requires_grad=False)
        else:
            self.register_buffer("table", torch.empty(shape, dtype=torch.float32), persistent=False)
            self._fill(self.table.device)

    def _fill(self, device: torch.device) -> None:
        self.table = alternating_sinusoids(*self.table.shape[1:], device)

    def _apply(self, fn, recurse=True):
        before = self.table
        super()._apply(fn, recurse)
        if not self.is_learned and (before.is_meta or self.table.dtype != torch.float32):
            self._fill(self.table.device)
        return self

    def forward(self, grid: Grid, interpolate: bool, device: torch.device) -> torch.Tensor:
        """Positions of all tokens of an input.

        Args:
            grid: the input's.
            interpolate: resize the table of the trained grid.
            device: the input's.

        Returns:
            (1, N, D), float32.

        Raises:
            ValueError: the grid is another than the trained one and neither way to go on is asked for.
        """
        if not self.is_learned and self.table.is_meta:
            self._fill(device)
        if not interpolate and self.config.use_input_positions:
            return alternating_sinusoids(grid.num_tokens, self.table.shape[-1], device)
        if interpolate and (torch.compiler.is_exporting() or grid != self.grid):
            return resize_position_volume(self.table, self.grid, grid)
        if grid != self.grid:
            raise ValueError(
                f"The input has {grid.t} × {grid.h} × {grid.w} tokens along time, height and width, but the positions "
                f"were trained on {self.grid.t} × {self.grid.h} × {self.grid.w} (`num_frames` = "
                f"{self.config.num_frames}, `image_size` = {self.config.image_size}). Sample and resize videos to "
                "that size; or pass `interpolate_pos_encoding=True`, which resizes the trained positions; or set "
                "`config.use_input_positions`, which computes those of a model of the input's size."
            )
        return self.table


class VideoMAEPatchEmbeddings(nn.Module):
    """Holds the tubelet projection under the name that it has on disk."""

    def __init__(self, config: VideoMAEConfig):
        super().__init__()
        self.projection = TubeletProjection(
            config.num_channels, config.hidden_size, config.tubelet_size, config.patch_height_width
        )

    def forward(self, video: torch.Tensor, grid: Grid, token_ids: torch.Tensor | None = None) -> torch.Tensor:
        return self.projection(video, grid, token_ids)


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
        self.query = Linear(size.hidden_size, size.hidden_size, bias=False)
        self.key = Linear(size.hidden_size, size.hidden_size, bias=False)
        self.value = Linear(size.hidden_size, size.hidden_size, bias=False)
        for projection in (self.query, self.key, self.value):
            projection.xavier_gain = sqrt(0.5)  # The original has the three in one layer, of three times the fan out.
        self.q_bias = nn.Parameter(torch.zeros(size.hidden_size)) if config.qv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(size.hidden_size)) if config.qv_bias else None

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
        self, hidden_states: torch.Tensor, output_attentions: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        query, key, value = self.query(hidden_states), self.key(hidden_states), self.value(hidden_states)
        if self.q_bias is not None:
            query, value = query + self.q_bias, value + self.v_bias
        query, key, value = (
            states.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (B, heads, N, head_dim)
            for states in (query, key, value)
        )
        return attention(
            self,
            query,
            key,
            value,
            implementation=self.config._attn_implementation,
            scaling=self.head_dim**-0.5,
            dropout=self.config.attention_probs_dropout_prob,
            output_attentions=output_attentions,
        )


class VideoMAEDense(nn.Module):
    """A linear layer with dropout after it, under the name that it has on disk."""

    def __init__(self, in_features: int, out_features: int, dropout: float):
        super().__init__()
        self.dense = Linear(in_features, out_features)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.dense(hidden_states))


class VideoMAEIntermediate(nn.Module):
    """The first half of the MLP."""

    def __init__(self, size: BlockSize, activation: str):
        super().__init__()
        self.dense = Linear(size.hidden_size, size.intermediate_size)
        self.activation = ACT2FN[activation]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return activate(self.activation, self.dense(hidden_states), self.dense)


class VideoMAEAttention(nn.Module):
    """Self-attention and its output projection."""

    def __init__(self, config: VideoMAEConfig, size: BlockSize):
        super().__init__()
        self.attention = VideoMAESelfAttention(config, size)
        self.output = VideoMAEDense(size.hidden_size, size.hidden_size, config.hidden_dropout_prob)

    def forward(
        self, hidden_states: torch.Tensor, output_attentions: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        attended, probabilities = self.attention(hidden_states, output_attentions)
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
        branch, probabilities = self.attention(self.layernorm_before(hidden_states), output_attentions)
        hidden_states = hidden_states + self.drop_path(self._scaled(branch, self.lambda_1))
        branch = in_token_blocks(self._transform, self.layernorm_after(hidden_states))
        hidden_states = hidden_states + self.drop_path(self._scaled(branch, self.lambda_2))
        return hidden_states, probabilities

    def _transform(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.output(self.intermediate(tokens))

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

    def forward(self, hidden_states: torch.Tensor, **records: bool) -> StackOutput:
        return run_layers(self.layer, hidden_states, **records)


class VideoMAEDecoder(nn.Module):
    """The decoder's blocks, norm and projection to pixels."""

    def __init__(self, config: VideoMAEConfig):
        super().__init__()
        width = config.decoder_hidden_size
        size = BlockSize(width, config.decoder_intermediate_size, config.decoder_num_attention_heads)
        rows, columns = config.patch_height_width
        self.decoder_layers = videomae_layers(config, size, config.decoder_num_hidden_layers)
        self.norm = nn.LayerNorm(width, eps=config.head_layer_norm_eps)
        self.head = Linear(width, config.num_channels * config.tubelet_size * rows * columns)

    def forward(
        self, hidden_states: torch.Tensor, num_visible: int, **records: bool
    ) -> tuple[torch.Tensor, StackOutput]:
        """Predict pixels of the masked tokens.

        Args:
            hidden_states: (B, N, D), visible tokens first.
            num_visible: how many these are.
            **records: what the blocks are to record, as [`run_layers`] takes it.

        Returns:
            (B, K, P), and what the blocks recorded.
        """
        stack = run_layers(self.decoder_layers, hidden_states, **records)
        return self.head(self.norm(stack.last[:, num_visible:])), stack


class VideoMAEPreTrainedModel(VideoPreTrainedModel):
    """Weight initialisation, loading and saving for all VideoMAE models."""

    config_class = VideoMAEConfig
    config: VideoMAEConfig
    base_model_prefix = "videomae"
    main_input_name = "pixel_values"
    input_modalities = ("video",)
    _no_split_modules = ["VideoMAEEmbeddings", "VideoMAELayer"]
    # Whether linear layers start as in the original's pre-training, by fan in and fan out, or as in its fine-tuning.
    is_initialised_by_fans = False

    @classmethod
    def from_pretrained(cls, *args, key_mapping: dict[str, str] | None = None, **kwargs):
        """Load a directory, in whichever of the two spellings the biases of queries and values are stored."""
        loaded = super().from_pretrained(*args, key_mapping={**BIAS_SPELLINGS, **(key_mapping or {})}, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        # transformers would undo at saving what it renamed at loading.
        renamed = getattr(model, "_weight_conversions", None) or []
        model._weight_conversions = [each for each in renamed if not set(each.source_patterns) & set(BIAS_SPELLINGS)]
        return loaded

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """As the original starts pre-training or, for all other models, fine-tuning.

        Source: `modeling_pretrain.py` and `modeling_finetune.py`. Both leave the patch embedding, and pre-training
        leaves `encoder_to_decoder`, as PyTorch initialises such layers.
        """
        std = self.config.initializer_range
        if isinstance(module, nn.Conv3d) or getattr(module, "is_initialised_by_torch", False):
            init.kaiming_uniform_(module.weight, a=sqrt(5))
            if module.bias is not None:
                bound = 1 / sqrt(module.weight[0].numel())
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.Linear):
            if self.is_initialised_by_fans:
                init.xavier_uniform_(module.weight, gain=getattr(module, "xavier_gain", 1.0))
            else:
                init.trunc_normal_(module.weight, std=std * getattr(module, "initial_scale", 1.0))
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, VideoMAESelfAttention) and module.q_bias is not None:
            init.zeros_(module.q_bias)
            init.zeros_(module.v_bias)
        elif isinstance(module, VideoMAELayer) and module.lambda_1 is not None:
            init.constant_(module.lambda_1, self.config.layer_scale_init_value)
            init.constant_(module.lambda_2, self.config.layer_scale_init_value)
        elif isinstance(module, VideoMAEPositions):
            if module.is_learned:
                init.trunc_normal_(module.table, std=std)
            else:
                init.copy_(module.table, alternating_sinusoids(*module.table.shape[1:], module.table.device))


class VideoMAEModel(VideoMAEPreTrainedModel):
    """The encoder.

    Its output is normalised in a model for pre-training and wherever `config.use_mean_pooling` is off; the classifier
    normalises the mean of the tokens instead.
    """

    def __init__(self, config: VideoMAEConfig, for_pretraining: bool = False):
        super().__init__(config)
        self.is_initialised_by_fans = for_pretraining
        self.embeddings = VideoMAEEmbeddings(config)
        self.encoder = VideoMAEEncoder(config)
        has_norm = not config.use_mean_pooling or (for_pretraining and config.use_pretraining_norm)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if has_norm else None
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        bool_masked_pos: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> BaseModelOutput:
        r"""Encode videos, all their tokens or the visible ones.

        Args:
            pixel_values: (B, T, C, H, W).
            bool_masked_pos: (B, N), true or 1 where a token is masked, as many in every video; or (B, K) integers, the
                numbers of the masked tokens. Masked tokens are not even embedded.
            interpolate_pos_encoding: resize the trained positions to an input of another size.
            output_hidden_states: record hidden states.
            output_attentions: record attention probabilities.

        Returns:
            `last_hidden_state` (B, N, D), or (B, V, D) of the visible tokens in ascending order, and the records.

        Raises:
            ValueError: input or mask of the wrong shape, different counts in a mask, or an input of another size than
                the configured one without a way to get its positions.
        """
        video, grid = self.embeddings.cut(pixel_values)
        visible_ids = None
        if bool_masked_pos is not None:
            visible_ids, _ = split_tokens(bool_masked_pos, video, grid)
        records = self._records(output_hidden_states, output_attentions)
        return self.encode(video, grid, visible_ids, interpolate_pos_encoding, **records)

    def encode(
        self, video: torch.Tensor, grid: Grid, visible_ids: torch.Tensor | None, interpolate: bool, **records: bool
    ) -> BaseModelOutput:
        """What `forward` does once the input is checked: `video` divides into tubelets, `visible_ids` are (B, V)."""
        stack = self.encoder(self.embeddings(video, grid, visible_ids, interpolate), **records)
        return BaseModelOutput(
            last_hidden_state=stack.last if self.layernorm is None else self.layernorm(stack.last),
            hidden_states=stack.hidden_states,
            attentions=stack.attentions,
        )

    def get_feature_map(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The encoder's features on the grid of the tokens, of videos of any size.

        Args:
            pixel_values: (B, T, C, H, W). Trained positions are resized to another size than the configured one.

        Returns:
            (B, t, h, w, D).
        """
        video, grid = self.embeddings.cut(pixel_values)
        interpolate = not self.config.use_input_positions
        return self.encode(video, grid, None, interpolate).last_hidden_state.unflatten(1, grid)

    def get_input_embeddings(self) -> VideoMAEPatchEmbeddings:
        return self.embeddings.patch_embeddings


class VideoMAEForPreTraining(VideoMAEPreTrainedModel):
    """The encoder on visible tokens, and a small decoder that predicts the pixels of masked ones."""

    is_initialised_by_fans = True

    def __init__(self, config: VideoMAEConfig):
        super().__init__(config)
        self.videomae = VideoMAEModel(config, for_pretraining=True)
        self.encoder_to_decoder = Linear(config.hidden_size, config.decoder_hidden_size, bias=False)
        self.encoder_to_decoder.is_initialised_by_torch = True
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.decoder_hidden_size))
        self.position_embeddings = VideoMAEPositions(config, config.decoder_hidden_size)
        self.decoder = VideoMAEDecoder(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self:
            std = self.config.initializer_range
            init.trunc_normal_(self.mask_token, std=std, a=-std, b=std)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        bool_masked_pos: torch.Tensor,
        interpolate_pos_encoding: bool = False,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> VideoMAEForPreTrainingOutput:
        r"""Predict the pixels of masked tokens from the visible ones.

        Args:
            pixel_values: (B, T, C, H, W), normalised with ImageNet's statistics if they have three channels.
            bool_masked_pos: (B, N), true or 1 where a token is masked, as many in every video; or (B, K) integers, the
                numbers of the masked tokens. [`tube_mask`] and [`random_mask`] draw masks.
            interpolate_pos_encoding: resize the trained positions to an input of another size.
            output_hidden_states: record hidden states of encoder and decoder.
            output_attentions: record their attention probabilities.

        Returns:
            [`VideoMAEForPreTrainingOutput`].

        Raises:
            ValueError: input or mask of the wrong shape, different counts in a mask, nothing visible or nothing
                masked, or an input of another size than the configured one without a way to get its positions.
        """
        records = self._records(output_hidden_states, output_attentions)
        video, grid = self.videomae.embeddings.cut(pixel_values)
        visible_ids, masked_ids = self._split(bool_masked_pos, video, grid)
        encoded = self.videomae.encode(video, grid, visible_ids, interpolate_pos_encoding, **records)

        positions = self.position_embeddings(grid, interpolate_pos_encoding, video.device)[0]  # (N, D)
        visible = self.encoder_to_decoder(encoded.last_hidden_state)  # (B, V, D)
        dtype = visible.dtype
        masked = self.mask_token.to(dtype) + positions[masked_ids].to(dtype)  # (B, K, D)
        tokens = torch.cat([visible + positions[visible_ids].to(dtype), masked], dim=1)
        logits, decoded = self.decoder(tokens, visible_ids.shape[1], **records)

        targets = self.targets(video, grid, masked_ids)
        return VideoMAEForPreTrainingOutput(
            loss=nn.functional.mse_loss(logits.float(), targets),
            logits=logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            decoder_hidden_states=decoded.hidden_states,
            decoder_attentions=decoded.attentions,
        )

    @staticmethod
    def _split(
        bool_masked_pos: torch.Tensor | None, video: torch.Tensor, grid: Grid
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """[`split_tokens`] of a mask that must be there and mask something."""
        if bool_masked_pos is None:
            raise ValueError(
                "Pre-training predicts masked tokens: pass `bool_masked_pos`, for instance "
                "`vidformers.tube_mask(model.config.token_grid, batch_size=len(pixel_values))`."
            )
        visible_ids, masked_ids = split_tokens(bool_masked_pos, video, grid)
        torch._check_value(
            masked_ids.shape[1] >= 1, lambda: "`bool_masked_pos` masks no token, so that nothing is to be predicted."
        )
        return visible_ids, masked_ids

    @torch.no_grad()
    def targets(self, video: torch.Tensor, grid: Grid, masked_ids: torch.Tensor) -> torch.Tensor:
        """The pixels that the logits are compared with.

        Args:
            video: (B, T, C, H, W) as given to the model, divisible into tubelets.
            grid: its grid.
            masked_ids: (B, K) token numbers.

        Returns:
            (B, K, P) float32: pixels in [0, 1] or, with `config.norm_pix_loss`, normalised within each tubelet and
            channel. Videos of other than three channels keep the values that they came with.

        Source: `engine_for_pretraining.py`.
        """
        pixels, (mean, std) = self._tubelets(video, grid, masked_ids), self._statistics(video.device)
        if self.config.norm_pix_loss:
            pixels, deviation = centre(pixels)
            pixels = pixels * (std / (deviation * std + 1e-6))
        else:
            pixels = pixels * std + mean
        return pixels.transpose(2, 3).flatten(2)

    @torch.no_grad()
    def reconstruct(
        self, pixel_values: torch.Tensor, bool_masked_pos: torch.Tensor, logits: torch.Tensor
    ) -> torch.Tensor:
        """The video with its masked tubelets as the model predicts them, to look at.

        With `config.norm_pix_loss` the model predicts no brightness and contrast; those of the true tubelets are used,
        as the original's `run_videomae_vis.py` does.

        Args:
            pixel_values: (B, T, C, H, W) as given to the model.
            bool_masked_pos: the mask, as given to the model: (B, N) booleans, or 0 and 1; or (B, K) integers, the
                numbers of the masked tokens.
            logits: (B, K, P), what it returned, in any floating-point type.

        Returns:
            (B, T, C, H, W) float32 in [0, 1] up to errors of the prediction; without the frames and pixels that fill
            no tubelet. Videos of other than three channels keep the scale that they came with.
        """
        video, grid = self.videomae.embeddings.cut(pixel_values)
        _, masked_ids = self._split(bool_masked_pos, video, grid)
        tubelets, (mean, std) = self._tubelets(video, grid), self._statistics(video.device)
        index = masked_ids[:, :, None, None].expand(-1, -1, *tubelets.shape[2:])  # (B, K, C, s·p·p)
        predicted = logits.float().unflatten(-1, (-1, self.config.num_channels)).transpose(2, 3)
        pixels = tubelets * std + mean
        if self.config.norm_pix_loss:
            true = pixels.gather(1, index)
            centred, deviation = centre(true)
            predicted = predicted * (deviation + 1e-6) + (true - centred)
        return self._frames(pixels.scatter(1, index, predicted), grid)

    def _tubelets(self, video: torch.Tensor, grid: Grid, token_ids: torch.Tensor | None = None) -> torch.Tensor:
        """Values of tubelets as they were given, (B, N or K, C, s·p·p), float32."""
        sides = self.config.tubelet_size, self.config.patch_height_width
        return tubelets_of(video, grid, *sides, token_ids).flatten(3).float()

    def _statistics(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and deviation that videos were normalised with, (C, 1) each: ImageNet's, or 0 and 1."""
        count = self.config.num_channels
        values = (IMAGENET_MEAN, IMAGENET_STD) if count == 3 else ((0.0,) * count, (1.0,) * count)
        mean, std = torch.tensor(values, device=device)[..., None]
        return mean, std

    def _frames(self, pixels: torch.Tensor, grid: Grid) -> torch.Tensor:
        """The inverse of `_tubelets`: (B, N, C, s·p·p) to (B, T, C, H, W)."""
        sides = (self.config.tubelet_size, *self.config.patch_height_width)
        pixels = pixels.unflatten(3, sides).unflatten(1, tuple(grid))  # (B, grid t, grid h, grid w, C, s, p, p)
        return pixels.permute(0, 1, 5, 4, 2, 6, 3, 7).flatten(6, 7).flatten(4, 5).flatten(1, 2)


def centre(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels (..., S) without their mean, and their deviation (..., 1) by the unbiased variance."""
    centred = pixels - pixels.mean(-1, keepdim=True)
    return centred, torch.linalg.vector_norm(centred, dim=-1, keepdim=True) / sqrt(max(pixels.shape[-1] - 1, 1))


class VideoMAEForVideoClassification(VideoMAEPreTrainedModel):
    """The encoder with a linear classifier on the mean of its tokens or, with `use_mean_pooling` off, on the first."""

    def __init__(self, config: VideoMAEConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.videomae = VideoMAEModel(config)
        self.fc_norm = None
        if config.use_mean_pooling:
            self.fc_norm = nn.LayerNorm(config.hidden_size, eps=config.head_layer_norm_eps)
        self.classifier = Linear(config.hidden_size, config.num_labels) if config.num_labels > 0 else nn.Identity()
        self.classifier.initial_scale = CLASSIFIER_INITIAL_SCALE
        self.post_init()

    def pool(self, tokens: torch.Tensor) -> torch.Tensor:
        """What the classifier reads of the encoder's output (B, N, D): (B, D)."""
        return tokens[:, 0] if self.fc_norm is None else self.fc_norm(tokens.mean(1))

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
            output_hidden_states: record the encoder's hidden states.
            output_attentions: record its attention probabilities.

        Returns:
            `logits` (B, num_labels), `loss` when labels were given, and the records.
        """
        records = self._records(output_hidden_states, output_attentions)
        encoded = self.videomae(
            pixel_values, interpolate_pos_encoding=interpolate_pos_encoding, return_dict=True, **records
        )
        logits = self.classifier(self.pool(encoded.last_hidden_state))
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        return ImageClassifierOutput(
            loss=loss, logits=logits, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )


__all__ = [
    "VideoMAEForPreTraining",
    "VideoMAEForVideoClassification",
    "VideoMAEModel",
    "VideoMAEPreTrainedModel",
]
