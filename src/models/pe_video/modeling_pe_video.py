"""PE Video: a temporal encoder over the frame embeddings of PE core, and with ModernBERT a video-text model.

Paper: https://arxiv.org/abs/2512.19687. Original code: facebookresearch/perception_models at 3e352cca, in
`core/audio_visual_encoder`: `pe.py`, `transformer.py` and `patcher.py`, of which this is the video and text part.

Shapes: B videos of T frames with C channels and H × W pixels; E channels of a frame's embedding; D channels of the
temporal encoder, whose T + 1 tokens are a class token and the frames; L tokens of a text.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import can_return_tuple

from vidformers.layers.attention import attention
from vidformers.layers.block import Records
from vidformers.layers.cpu import float32_products
from vidformers.layers.losses import check_pairs, gather_pairs
from vidformers.layers.modules import to_dtype_of
from vidformers.layers.norms import unit_length
from vidformers.layers.rope import RotaryTable, apply_rotary, rotary_table

from ..pe_core.configuration_pe_vision import PeVisionConfig
from ..pe_core.modeling_pe_vision import PeVisionModel, PeVisionOutput, init_tower_tables, run_on_frames
from ..pretrained import NestedOutput, VideoPreTrainedModel, with_own_parameters
from .configuration_pe_video import PeVideoConfig, PeVideoEncoderConfig


@dataclass
class PeVideoEncoderOutput(BaseModelOutputWithPooling):
    """What [`PeVideoEncoder`] computes.

    Args:
        last_hidden_state: (B, T, D), the frames after the output layer; what stands at padding means nothing.
        pooler_output: (B, D), the class token after the output layer.
        hidden_states: (B, T + 1, D) each: the input of every temporal block and the output of the last one, not
            normalized.
        attentions: (B, heads, T + 1, T + 1) of every temporal block.
        pe_features: (B, T, E), the embeddings of the frames, of length one, and zero at padding.
        frame_hidden_states: (B·T, N, W) each, the hidden states of the frame tower, zero at padding; `None` where
            `pe_features` took its place.
        frame_attentions: (B·T, heads, N, N) of every block of the frame tower, likewise.
    """

    pe_features: torch.Tensor | None = None
    frame_hidden_states: tuple[torch.Tensor, ...] | None = None
    frame_attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class PeVideoOutput(NestedOutput):
    """What [`PeVideoModel`] computes. Fields of a modality that the call did not give are `None`.

    Args:
        loss: scalar, when `return_loss` asked for it.
        logits_video_text: (videos, texts), dot products of the embeddings, scaled and shifted. Their sigmoid is the
            probability that video and text belong together.
        text_video_embeds: (texts, P), text embeddings in the space of the videos.
        video_embeds: (videos, P).
        text_outputs: of the text tower: `last_hidden_state` (texts, L, width) as text embeddings are made from it, its
            first token as `pooler_output`, and the records.
        video_outputs: a [`PeVideoEncoderOutput`].
    """

    loss: torch.Tensor | None = None
    logits_video_text: torch.Tensor | None = None
    text_video_embeds: torch.Tensor | None = None
    video_embeds: torch.Tensor | None = None
    text_outputs: BaseModelOutputWithPooling | None = None
    video_outputs: PeVideoEncoderOutput | None = None


class PeVideoFrameTower(nn.Module):
    """Holds the frame tower under the name that it has on disk."""

    def __init__(self, config: PeVisionConfig):
        super().__init__()
        self.timm_model = PeVisionModel(config)

    def forward(self, pixel_values: torch.Tensor, **flags: bool) -> PeVisionOutput:
        return self.timm_model(pixel_values, **flags)


class PeVideoEmbedder(nn.Module):
    """Frames to embeddings of length one, and these to the temporal encoder's tokens."""

    def __init__(self, config: PeVideoEncoderConfig):
        super().__init__()
        self.vision_model = PeVideoFrameTower(config.vision_config)
        self.proj = nn.Linear(config.vision_config.projection_dim, config.hidden_size, bias=False)
        self.data_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def embed_frames(
        self, video: torch.Tensor, real: torch.Tensor | None, **flags: bool
    ) -> tuple[torch.Tensor, PeVisionOutput]:
        """Embeddings (B, T, E) of the frames of videos (B, T, C, H, W), and the frame tower's output.

        Both are zero where `real` (B, T), if there is one, is false.
        """
        output = run_on_frames(self.vision_model, video, real, **flags)
        return unit_length(output.image_embeds).unflatten(0, video.shape[:2]), output

    def forward(self, pe_features: torch.Tensor) -> torch.Tensor:
        """Turn embeddings of frames (B, T, E) into tokens (B, T, D)."""
        return self.data_proj(self.proj(to_dtype_of(self.proj, pe_features)))


class PeVideoMaskedGroupNorm(nn.GroupNorm):
    """Normalizes each video by the mean and variance over all channels of its real tokens."""

    def forward(self, hidden_states: torch.Tensor, real: torch.Tensor | None) -> torch.Tensor:
        """Normalize (B, D, N) in float32, with zeros where `real` (B, 1, N), if there is one, is false."""
        dtype, hidden_states = hidden_states.dtype, hidden_states.float()
        weight, bias = self.weight.float(), self.bias.float()
        if real is None:
            return nn.functional.group_norm(hidden_states, 1, weight, bias, self.eps).to(dtype)
        count = real.sum((1, 2), keepdim=True) * hidden_states.shape[1]
        mean = (hidden_states * real).sum((1, 2), keepdim=True) / count
        centered = (hidden_states - mean) * real
        variance = centered.square().sum((1, 2), keepdim=True) / count
        normalized = centered * (variance + self.eps).rsqrt() * weight[:, None] + bias[:, None]
        return (normalized * real).to(dtype)


class PeVideoConvBlock1d(nn.Module):
    """Norm, activation, and a convolution over three neighboring tokens."""

    def __init__(self, config: PeVideoEncoderConfig):
        super().__init__()
        self.groupnorm = PeVideoMaskedGroupNorm(1, config.hidden_size)
        self.project = nn.Conv1d(config.hidden_size, config.hidden_size, kernel_size=3, padding=1)

    def forward(self, hidden_states: torch.Tensor, real: torch.Tensor | None) -> torch.Tensor:
        return self.project(nn.functional.silu(self.groupnorm(hidden_states, real=real)))


class PeVideoResnetBlock1d(nn.Module):
    """Two convolution blocks beside a residual: (B, N, D) → (B, N, D)."""

    def __init__(self, config: PeVideoEncoderConfig):
        super().__init__()
        self.block1 = PeVideoConvBlock1d(config)
        self.block2 = PeVideoConvBlock1d(config)

    def forward(self, hidden_states: torch.Tensor, real: torch.Tensor | None) -> torch.Tensor:
        real = None if real is None else real[:, None]  # (B, 1, N)
        branch = self.block2(self.block1(hidden_states.transpose(1, 2), real=real), real=real)  # (B, D, N)
        return hidden_states + branch.transpose(1, 2)


class PeVideoPatchEmbedder(nn.Module):
    """Puts the class token before the frames and lets neighbors mix."""

    def __init__(self, config: PeVideoEncoderConfig):
        super().__init__()
        self.class_embedding = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.resnet_block = PeVideoResnetBlock1d(config)

    def forward(self, frames: torch.Tensor, real: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """From frames (B, T, D) and their mask (B, T): tokens (B, T + 1, D), and theirs, true at the class token."""
        tokens = torch.cat([self.class_embedding.expand(frames.shape[0], -1, -1), frames], dim=1)
        real = None if real is None else nn.functional.pad(real, (1, 0), value=True)
        return self.resnet_block(tokens, real=real), real


class PeVideoRMSNorm(nn.Module):
    """x / √(mean x² + ε) over the last axis, scaled by channel, computed in float32."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        normalized = nn.functional.rms_norm(hidden_states.float(), self.weight.shape, self.weight.float(), self.eps)
        return normalized.to(hidden_states.dtype)


class PeVideoEncoderAttention(nn.Module):
    """Self-attention of tokens with rotary positions in time; queries and keys are normalized head by head."""

    is_causal = False

    def __init__(self, config: PeVideoEncoderConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.head_dim
        self.queries_per_key = config.num_attention_heads // config.num_key_value_heads
        width, bias = config.hidden_size, config.attention_bias
        self.q_proj = nn.Linear(width, config.num_attention_heads * self.head_dim, bias=bias)
        self.k_proj = nn.Linear(width, config.num_key_value_heads * self.head_dim, bias=bias)
        self.v_proj = nn.Linear(width, config.num_key_value_heads * self.head_dim, bias=bias)
        self.o_proj = nn.Linear(config.num_attention_heads * self.head_dim, width, bias=bias)
        self.q_norm = PeVideoRMSNorm(self.head_dim, config.rms_norm_eps)
        self.k_norm = PeVideoRMSNorm(self.head_dim, config.rms_norm_eps)

    def forward(
        self, hidden_states: torch.Tensor, *, rotary: RotaryTable, mask: torch.Tensor | None, output_attentions: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        query, key, value = (
            projection(hidden_states).unflatten(-1, (-1, self.head_dim))  # (B, N, heads, head_dim)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        query, key = apply_rotary(self.q_norm(query), rotary), apply_rotary(self.k_norm(key), rotary)
        key, value = (states.repeat_interleave(self.queries_per_key, dim=2) for states in (key, value))
        attended, probabilities = attention(
            self,
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            scaling=self.head_dim**-0.5,
            dropout=self.config.attention_dropout,
            mask=mask,
            output_attentions=output_attentions,
        )
        return self.o_proj(attended), probabilities


class PeVideoEncoderMLP(nn.Module):
    """Gated MLP: (…, D) → (…, D)."""

    def __init__(self, config: PeVideoEncoderConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.activation(self.gate_proj(hidden_states)) * self.up_proj(hidden_states))


class PeVideoEncoderLayer(GradientCheckpointingLayer):
    """Pre-norm transformer block over the tokens of a video."""

    def __init__(self, config: PeVideoEncoderConfig):
        super().__init__()
        self.input_layernorm = PeVideoRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = PeVideoEncoderAttention(config)
        self.post_attention_layernorm = PeVideoRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = PeVideoEncoderMLP(config)

    def forward(
        self,
        hidden_states: torch.Tensor,
        *,
        rotary: RotaryTable,
        mask: torch.Tensor | None = None,
        output_attentions: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        attended, probabilities = self.self_attn(
            self.input_layernorm(hidden_states), rotary=rotary, mask=mask, output_attentions=output_attentions
        )
        hidden_states = hidden_states + attended
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states)), probabilities


class PeVideoContrastiveHead(nn.Module):
    """Norm and projection into the space in which videos and texts are compared."""

    def __init__(self, hidden_size: int, projection_dim: int):
        super().__init__()
        self.layer_norm = nn.LayerNorm(hidden_size, eps=1e-6)
        self.proj = nn.Linear(hidden_size, projection_dim, bias=False)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        return self.proj(self.layer_norm(pooled))


class UnusedLayerNorm(nn.LayerNorm):
    """Keeps the weights of a norm that checkpoints hold and the model passes by."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states


class PeVideoPreTrainedModel(VideoPreTrainedModel):
    """Weight initialization, loading and saving for all PE Video models."""

    config_class = PeVideoConfig
    config: PeVideoConfig
    base_model_prefix = "video_model"
    input_modalities = ("video", "text")
    main_input_name = "pixel_values_videos"
    _no_split_modules = ["PeVideoEncoderLayer", "PeVideoPatchEmbedder"]
    # What PE audio-video models have besides: `PeVideoConfig` names it when it reads one.
    _keys_to_ignore_on_load_unexpected = [r"^(audio|text_audio_video|video_plus_text)_"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Normals, biases zero, norms one; the class token as in the original, scale and bias of the logits zero."""
        super()._init_weights(module)
        init_tower_tables(module)
        if isinstance(module, PeVideoRMSNorm):
            init.ones_(module.weight)
        elif isinstance(module, PeVideoPatchEmbedder):
            init.normal_(module.class_embedding)
        elif isinstance(module, PeVideoModel):
            init.zeros_(module.text_video_logit_scale)
            init.zeros_(module.text_video_logit_bias)


class PeVideoEncoder(PeVideoPreTrainedModel):
    """The video encoder: PE core over every frame, then blocks over the frames' embeddings."""

    config_class = PeVideoEncoderConfig
    config: PeVideoEncoderConfig
    base_model_prefix = "video_encoder"
    input_modalities = ("video",)
    encodes_frames_separately = True

    def __init__(self, config: PeVideoEncoderConfig):
        super().__init__(config)
        self.embedder = PeVideoEmbedder(config)
        self.patch_embedder = PeVideoPatchEmbedder(config)
        self.layers = nn.ModuleList(PeVideoEncoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = PeVideoRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.output = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embedder.vision_model.timm_model.get_input_embeddings()

    def get_frame_features(
        self, pixel_values_videos: torch.Tensor, padding_mask_videos: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Embed frames one by one, as `forward` does before anything else.

        Args:
            pixel_values_videos: (B, T, C, H, W), values in [-1, 1].
            padding_mask_videos: (B, T), true or 1 at frames of the video.

        Returns:
            (B, T, E), of length one, and zero at padding: what `forward` takes as `pe_features`.
        """
        real = self._real_frames(padding_mask_videos, _check_video(pixel_values_videos, self.config))
        return self.embedder.embed_frames(pixel_values_videos, real)[0]

    def get_feature_map(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        """Features of every frame in its context, on a grid of one place a frame.

        Args:
            pixel_values_videos: (B, T, C, H, W), values in [-1, 1].

        Returns:
            (B, T, 1, 1, D), the `last_hidden_state` of a call.
        """
        return self.encode_clip(self.encode_frames(pixel_values_videos))

    def encode_frames(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        """As [`~PeVideoEncoder.get_frame_features`].

        Args:
            pixel_values_videos: (B, T, C, H, W), values in [-1, 1].

        Returns:
            (B, T, E), of length one.
        """
        return self.get_frame_features(pixel_values_videos)

    def encode_clip(self, frames: torch.Tensor) -> torch.Tensor:
        """The temporal blocks over embeddings of frames.

        Args:
            frames: (B, T, E), of [`~PeVideoEncoder.encode_frames`].

        Returns:
            (B, T, 1, 1, D), the feature map.
        """
        return self(pe_features=frames, return_dict=True).last_hidden_state[:, :, None, None]

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: torch.Tensor | None = None,
        padding_mask_videos: torch.Tensor | None = None,
        pe_features: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> PeVideoEncoderOutput:
        r"""Encode videos of any number of frames and any size.

        Args:
            pixel_values_videos: (B, T, C, H, W), values in [-1, 1].
            padding_mask_videos: (B, T), true or 1 at frames of the video, false or 0 at frames that only fill the
                batch, wherever they stand. The frame tower doesn't run on padding, and nothing depends on it.
            pe_features: (B, T, E), embeddings of frames that [`~PeVideoEncoder.get_frame_features`] made before, in
                the place of `pixel_values_videos`. The frame tower doesn't run.
            output_hidden_states, output_attentions: what to record, as for [`VideoPreTrainedModel`].

        Returns:
            [`PeVideoEncoderOutput`].

        Raises:
            ValueError: both or neither of frames and their embeddings, or an input of the wrong shape.
        """
        if (pixel_values_videos is None) == (pe_features is None):
            raise ValueError("Give exactly one of `pixel_values_videos` and `pe_features`.")
        flags = self._flags(output_hidden_states, output_attentions)
        frames = PeVisionOutput()
        if pe_features is None:
            real = self._real_frames(padding_mask_videos, _check_video(pixel_values_videos, self.config))
            pe_features, frames = self.embedder.embed_frames(pixel_values_videos, real, **flags)
        else:
            real = self._real_frames(padding_mask_videos, _check_features(pe_features, self.config))
            pe_features = pe_features if real is None else pe_features.masked_fill(~real[..., None], 0.0)

        hidden_states, real = self.patch_embedder(self.embedder(pe_features), real=real)  # (B, T + 1, D)
        mask = None if real is None else real[:, None, None]  # (B, 1, 1, T + 1)
        rotary = self._rotary(hidden_states)
        records = Records(hidden_states, **flags)
        for layer in self.layers:
            hidden_states, probabilities = layer(
                hidden_states, rotary=rotary, mask=mask, output_attentions=flags["output_attentions"]
            )
            records.add(hidden_states, probabilities)
        # Copies, because torch 2.13 loses track of views of a product (pytorch/pytorch#185630).
        output = self.output(self.norm(hidden_states))
        return PeVideoEncoderOutput(
            last_hidden_state=output[:, 1:].clone(),
            pooler_output=output[:, 0].clone(),
            hidden_states=records.hidden_states,
            attentions=records.attentions,
            pe_features=pe_features,
            frame_hidden_states=frames.hidden_states,
            frame_attentions=frames.attentions,
        )

    def _rotary(self, tokens: torch.Tensor) -> RotaryTable:
        """Rotary factors of the tokens; the class token has the number 0."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
        base = self.config.rope_parameters["rope_theta"]
        return rotary_table((positions,), self.config.head_dim, pairing="interleaved", dtype=torch.float32, base=base)

    @staticmethod
    def _real_frames(padding_mask: torch.Tensor | None, size: torch.Size) -> torch.Tensor | None:
        """The mask (B, T) as booleans; `None` where it can be seen without waiting that no frame is padding."""
        if padding_mask is None:
            return None
        if padding_mask.shape != size:
            raise ValueError(
                f"Expected `padding_mask_videos` of shape (batch, frames) = {tuple(size)}, got "
                f"{tuple(padding_mask.shape)}."
            )
        real = padding_mask.bool()
        unseen = torch.compiler.is_compiling() or real.device.type != "cpu"
        return real if unseen or not real.all() else None


def sigmoid_loss(logits: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of every pair, summed over the texts of a video (https://arxiv.org/abs/2303.15343).

    Args:
        logits: (N, N); entry (i, i) belongs to a matching pair, all others don't match.

    Returns:
        A scalar, in float32: the mean over videos.

    Raises:
        ValueError: the matrix isn't square, so that pairs cannot be told.
    """
    check_pairs(logits)
    signs = 2 * torch.eye(logits.shape[0], device=logits.device) - 1
    return -nn.functional.logsigmoid(signs * logits.float()).sum() / logits.shape[0]


def _check_video(video: torch.Tensor, config: PeVideoEncoderConfig) -> torch.Size:
    """Number of videos and of frames of `pixel_values_videos`, or a ValueError for another layout."""
    num_channels = config.vision_config.num_channels
    if video.ndim != 5 or video.shape[2] != num_channels or 0 in video.shape[:2]:
        raise ValueError(
            f"Expected `pixel_values_videos` of shape (batch, frames, {num_channels}, height, width) with at least "
            f"one video and frame, got {tuple(video.shape)}. The video processor returns this layout."
        )
    return video.shape[:2]


def _check_features(features: torch.Tensor, config: PeVideoEncoderConfig) -> torch.Size:
    """Number of videos and of frames of `pe_features`, or a ValueError for another layout."""
    width = config.vision_config.projection_dim
    if features.ndim != 3 or features.shape[2] != width or 0 in features.shape[:2]:
        raise ValueError(
            f"Expected `pe_features` of shape (batch, frames, {width}) with at least one video and frame, got "
            f"{tuple(features.shape)}. `get_frame_features` returns this layout."
        )
    return features.shape[:2]


class PeVideoModel(PeVideoPreTrainedModel):
    """Video encoder and text tower, whose embeddings are compared."""

    main_input_name = "input_ids"
    has_text_tower = True
    encodes_frames_separately = True

    def __init__(self, config: PeVideoConfig):
        super().__init__(config)
        text_size, video_size = config.text_config.hidden_size, config.video_config.hidden_size
        projection_dim = config.projection_dim or text_size
        self.text_model = AutoModel.from_config(config.text_config)
        if not config.normalize_text:
            # transformers applies this norm before it returns anything, which the original does not read.
            self.text_model.final_norm = UnusedLayerNorm(text_size, bias=config.text_config.norm_bias)
        self.video_encoder = PeVideoEncoder(config.video_config)
        self.text_video_head = PeVideoContrastiveHead(text_size, projection_dim)
        self.video_head = PeVideoContrastiveHead(video_size, projection_dim)
        self.text_video_logit_scale = nn.Parameter(torch.zeros(1))
        self.text_video_logit_bias = nn.Parameter(torch.zeros(1))
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.text_model.set_input_embeddings(value)

    def get_frame_features(
        self, pixel_values_videos: torch.Tensor, padding_mask_videos: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Embed frames one by one, as [`~PeVideoEncoder.get_frame_features`] of the video encoder.

        Args:
            pixel_values_videos: (B, T, C, H, W), values in [-1, 1].
            padding_mask_videos: (B, T), true or 1 at frames of the video, false or 0 at frames that only fill the
                batch.

        Returns:
            (B, T, E), of length one, and zero at padding: what `forward` takes as `pe_features`.

        Raises:
            ValueError: an input of the wrong shape.
        """
        return self.video_encoder.get_frame_features(pixel_values_videos, padding_mask_videos)

    @property
    def feature_tower(self) -> PeVideoEncoder:
        return self.video_encoder

    def get_feature_map(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        return self.video_encoder.get_feature_map(pixel_values_videos)

    @can_return_tuple
    def get_text_features(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> BaseModelOutputWithPooling:
        """Embed texts in the space of the videos.

        Args:
            input_ids: (texts, L) token numbers.
            attention_mask: (texts, L), 1 at tokens and 0 at padding; by default all are tokens.
            output_hidden_states, output_attentions: what to record of the text tower.

        Returns:
            The text tower's output: `last_hidden_state` (texts, L, width), and as `pooler_output` (texts, P) the
            embeddings that are compared.
        """
        flags = self._flags(output_hidden_states, output_attentions)
        with float32_products(self.dtype, self.device):
            output = self._encode_text(input_ids, attention_mask, **flags)
            output.pooler_output = self.text_video_head(output.pooler_output)
        return output

    @can_return_tuple
    def get_video_features(
        self,
        pixel_values_videos: torch.Tensor | None = None,
        padding_mask_videos: torch.Tensor | None = None,
        pe_features: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> PeVideoEncoderOutput:
        """Embed videos in the space of the texts.

        Args:
            pixel_values_videos: (videos, T, C, H, W), values in [-1, 1]; `None` where `pe_features` are given.
            padding_mask_videos: (videos, T), true or 1 at frames of the video, false or 0 at frames that only fill
                the batch.
            pe_features: (videos, T, E), embeddings of frames, as for [`PeVideoEncoder`].
            output_hidden_states, output_attentions: what to record, as for [`VideoPreTrainedModel`].

        Returns:
            [`PeVideoEncoderOutput`], but with the embeddings that are compared, (videos, P), as `pooler_output`.

        Raises:
            ValueError: both or neither of frames and their embeddings, or an input of the wrong shape.
        """
        flags = self._flags(output_hidden_states, output_attentions)
        output = self.video_encoder(
            pixel_values_videos, padding_mask_videos, pe_features=pe_features, **flags, return_dict=True
        )
        with float32_products(self.dtype, self.device):
            output.pooler_output = self.video_head(output.pooler_output)
        return output

    def embed_videos(
        self, pixel_values_videos: torch.Tensor, padding_mask_videos: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The embeddings that are compared. Their lengths count: the model compares dot products.

        Args:
            pixel_values_videos: (videos, T, C, H, W), values in [-1, 1].
            padding_mask_videos: (videos, T), true or 1 at frames of the video.

        Returns:
            (videos, P), float32.
        """
        return self.get_video_features(
            pixel_values_videos, padding_mask_videos, return_dict=True
        ).pooler_output.float()

    def embed_texts(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """The embeddings that are compared. Their lengths count: the model compares dot products.

        Args:
            input_ids: (texts, L) token numbers.
            attention_mask: (texts, L), 1 at tokens and 0 at padding.

        Returns:
            (texts, P), float32.
        """
        return self.get_text_features(input_ids, attention_mask, return_dict=True).pooler_output.float()

    @with_own_parameters
    def compare(self, video_embeds: torch.Tensor, text_embeds: torch.Tensor) -> torch.Tensor:
        return self._logits(video_embeds.float(), text_embeds.float())

    def encode_frames(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        return self.get_frame_features(pixel_values_videos)

    def encode_clip(self, frames: torch.Tensor) -> torch.Tensor:
        return self.get_video_features(pe_features=frames, return_dict=True).pooler_output.float()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        padding_mask_videos: torch.Tensor | None = None,
        return_loss: bool | None = None,
        pe_features: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> PeVideoOutput:
        r"""Embed videos, texts or both, and compare them.

        Args:
            input_ids: (texts, L) token numbers.
            pixel_values_videos: (videos, T, C, H, W), values in [-1, 1].
            attention_mask: (texts, L), 1 at tokens and 0 at padding.
            padding_mask_videos: (videos, T), true or 1 at frames of the video.
            return_loss: compute the loss over all pairs: video i belongs to text i and to no other. In distributed
                training the pairs of all processes count, and each of them must ask for it.
            pe_features: (videos, T, E), embeddings of frames in the place of `pixel_values_videos`.
            output_hidden_states, output_attentions: what to record, as for [`VideoPreTrainedModel`].

        Returns:
            [`PeVideoOutput`].

        Raises:
            ValueError: neither videos nor texts, or a loss without pairs.
        """
        has_video = pixel_values_videos is not None or pe_features is not None
        if not has_video and input_ids is None:
            raise ValueError("Give videos (`pixel_values_videos` or `pe_features`), `input_ids` or both.")
        if return_loss and not (has_video and input_ids is not None):
            raise ValueError("`return_loss` needs videos and `input_ids`, pair by pair.")
        flags = self._flags(output_hidden_states, output_attentions)
        video = text = video_embeds = text_embeds = logits = loss = None
        if has_video:
            video = self.video_encoder(
                pixel_values_videos, padding_mask_videos, pe_features=pe_features, **flags, return_dict=True
            )
            video_embeds = self.video_head(video.pooler_output)
        if input_ids is not None:
            text = self._encode_text(input_ids, attention_mask, **flags)
            text_embeds = self.text_video_head(text.pooler_output)
        if has_video and input_ids is not None:
            logits = self._logits(video_embeds, text_embeds)
            loss = sigmoid_loss(self._logits(*gather_pairs(video_embeds, text_embeds))) if return_loss else None
        return PeVideoOutput(
            loss=loss,
            logits_video_text=logits,
            text_video_embeds=text_embeds,
            video_embeds=video_embeds,
            text_outputs=text,
            video_outputs=video,
        )

    def _logits(self, video_embeds: torch.Tensor, text_embeds: torch.Tensor) -> torch.Tensor:
        """Scaled and shifted dot products (videos, texts) of embeddings (…, P)."""
        return video_embeds @ text_embeds.T * self.text_video_logit_scale + self.text_video_logit_bias

    def _encode_text(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> BaseModelOutputWithPooling:
        """The text tower's output, with the first token of each text as `pooler_output`."""
        config, on_cpu = self.text_model.config, input_ids.device.type == "cpu"
        chosen = wanted = config._attn_implementation
        if output_attentions:
            wanted = "eager"
        elif chosen == "flex_attention" and on_cpu:
            wanted = "sdpa"  # as `layers.attention` does with masks, which the tower always has
        if wanted != chosen:
            config._attn_implementation = wanted
        try:
            encoded = self.text_model(
                input_ids,
                attention_mask=attention_mask,
                output_hidden_states=output_hidden_states,
                output_attentions=output_attentions,
                return_dict=True,
            )
        finally:
            if wanted != chosen:
                config._attn_implementation = chosen
        return BaseModelOutputWithPooling(
            last_hidden_state=encoded.last_hidden_state,
            pooler_output=encoded.last_hidden_state[:, 0],
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )


__all__ = ["PeVideoEncoder", "PeVideoModel", "PeVideoPreTrainedModel"]
