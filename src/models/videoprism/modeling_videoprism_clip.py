"""VideoPrism's text tower, and the video-text model that compares its texts with videos.

Original code: google-deepmind/videoprism at d481d91b, `videoprism/encoders.py`.

Shapes: B videos or texts; T frames with C channels and H × W pixels; L tokens of a text, to which the model adds one;
D channels of a token or an embedding.
"""

from dataclasses import dataclass
from math import log, sqrt

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import can_return_tuple

from vidformers.layers.losses import contrastive_loss, gather_pairs

from ..pretrained import NestedOutput, with_own_parameters
from .configuration_videoprism import VideoPrismConfig, VideoPrismTextConfig
from .modeling_videoprism import (
    OffsetLayerNorm,
    VideoPrismLayer,
    VideoPrismPreTrainedModel,
    VideoPrismVideoModel,
    VideoPrismVideoOutput,
    VideoPrismVisionModel,
    l2_normalize,
    run_blocks,
)


DEFAULT_TEMPERATURE = 0.01
"""What `compare` divides similarities by where the model has learned none (`videoprism_video_text_demo.ipynb`)."""


@dataclass
class VideoPrismClipOutput(NestedOutput):
    """What [`VideoPrismClipModel`] computes. Fields of a modality that the call did not give are `None`.

    Args:
        loss: scalar, when `return_loss` asked for it.
        logits_per_video: (videos, texts), as transformers has it: no logits, but for every text the softmax of its
            scaled similarities over the videos of the batch.
        logits_per_text: (texts, videos): for every video the softmax over the texts of the batch.
        video_embeds: (videos, D).
        text_embeds: (texts, D).
        video_model_output: a [`VideoPrismVideoOutput`].
        text_model_output: of the text tower.
        similarity_logits_per_video: (videos, texts), dot products of the embeddings over the temperature.
        similarity_logits_per_text: (texts, videos), the same, transposed.
    """

    loss: torch.Tensor | None = None
    logits_per_video: torch.Tensor | None = None
    logits_per_text: torch.Tensor | None = None
    video_embeds: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    video_model_output: VideoPrismVideoOutput | None = None
    text_model_output: BaseModelOutputWithPooling | None = None
    similarity_logits_per_video: torch.Tensor | None = None
    similarity_logits_per_text: torch.Tensor | None = None


def sinusoidal_positions(positions: torch.Tensor, dim: int, longest: float = 10000.0) -> torch.Tensor:
    """Sines, then cosines, of positions at wavelengths from 2π to 2π·`longest`, both ends included.

    Args:
        positions: integers or floats of any shape.
        dim: even number of channels.
        longest: the longest wavelength is 2π·`longest`.

    Returns:
        (*positions.shape, dim), float32.
    """
    count = dim // 2
    steps = torch.arange(count, dtype=torch.float32, device=positions.device)
    frequencies = (steps * (-log(longest) / max(count - 1, 1))).exp()
    angles = positions.float()[..., None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class VideoPrismTextEmbeddings(nn.Module):
    """Tokens with sinusoidal positions, and after them a learned token without position whose output is the text's."""

    def __init__(self, config: VideoPrismTextConfig):
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.cls_emb = nn.Parameter(torch.zeros(1, 1, config.hidden_size))

    def forward(
        self, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None, position_ids: torch.Tensor | None
    ) -> torch.Tensor:
        """Embed token numbers (B, L), or take their embeddings (B, L, D): (B, L + 1, D)."""
        tokens = self.token_embedding(input_ids) if inputs_embeds is None else inputs_embeds
        batch_size, length, width = tokens.shape
        if position_ids is None:
            position_ids = torch.arange(length, device=tokens.device)[None]
        tokens = tokens * sqrt(width) + sinusoidal_positions(position_ids, width).to(tokens.dtype)
        last = (self.cls_emb * sqrt(width)).to(tokens.dtype).expand(batch_size, -1, -1)
        return torch.cat([tokens, last], dim=1)


class VideoPrismTextPreTrainedModel(VideoPrismPreTrainedModel):
    """Weight initialization and loading of VideoPrism's models with text."""

    # Directories of transformers hold a table of text positions that is not the original's. It is computed here.
    _keys_to_ignore_on_load_unexpected = [r"(^|\.)embeddings\.position_(embedding|ids)$"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """As the video tower; the added token has the deviation 1/√D too."""
        super()._init_weights(module)
        if isinstance(module, VideoPrismTextEmbeddings):
            init.normal_(module.cls_emb, std=module.cls_emb.shape[-1] ** -0.5)
        elif isinstance(module, VideoPrismClipModel) and module.logit_scale is not None:
            init.constant_(module.logit_scale, module.config.logit_scale_init_value)


class VideoPrismTextModel(VideoPrismTextPreTrainedModel):
    """The text tower. A text's embedding is the output at a token that the model adds after the last one."""

    config_class = VideoPrismTextConfig
    config: VideoPrismTextConfig
    base_model_prefix = "text_model"
    main_input_name = "input_ids"
    input_modalities = ("text",)
    _input_embed_layer = "token_embedding"

    def __init__(self, config: VideoPrismTextConfig):
        super().__init__(config)
        self.embeddings = VideoPrismTextEmbeddings(config)
        self.layers = nn.ModuleList(
            VideoPrismLayer(config, config.norm_policy) for _ in range(config.num_hidden_layers)
        )
        self.layernorm = OffsetLayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def _mask(self, hidden_states: torch.Tensor, real: torch.Tensor | None) -> torch.Tensor | None:
        """Which token attends to which: (B or 1, 1, L + 1 or 1, L + 1).

        Causal padding attends to nothing, and so to everything alike; without causality it attends to the text. Both
        come from how the original merges its masks: `compute_attention_masks_for_fprop`.
        """
        keys = None if real is None else real[:, None, None]  # (B, 1, 1, L + 1)
        if not self.config.enable_causal_attention:
            return keys
        length = hidden_states.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=hidden_states.device).tril()[None, None]
        return causal if real is None else causal & keys & real[:, None, :, None]

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> BaseModelOutputWithPooling:
        r"""Embed texts.

        Args:
            input_ids: (B, L) token numbers.
            attention_mask: (B, L), 1 at tokens and 0 at padding. By default all are tokens.
            inputs_embeds: (B, L, D) embeddings in the place of `input_ids`.
            position_ids: (B or 1, L) positions, by default from 0.
            output_hidden_states, output_attentions: what to record, as for [`VideoPreTrainedModel`].

        Returns:
            `last_hidden_state` (B, L + 1, D), normalized, with the added token last; `pooler_output` (B, D), the text
            embeddings, of length one if `config.apply_l2norm` is on; and the records.

        Raises:
            ValueError: both or neither of `input_ids` and `inputs_embeds`.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give exactly one of `input_ids` and `inputs_embeds`.")
        flags = self._flags(output_hidden_states, output_attentions)
        hidden_states = self.embeddings(input_ids, inputs_embeds, position_ids)  # (B, L + 1, D)
        real = None if attention_mask is None else nn.functional.pad(attention_mask.bool(), (0, 1), value=True)
        mask = self._mask(hidden_states, real)
        hidden_states, records = run_blocks(self.layers, hidden_states, mask=mask, real=real, **flags)
        last_hidden_state = self.layernorm(hidden_states)
        embeddings = last_hidden_state[:, -1]
        return BaseModelOutputWithPooling(
            last_hidden_state=last_hidden_state,
            pooler_output=l2_normalize(embeddings) if self.config.apply_l2norm else embeddings,
            hidden_states=records.hidden_states and (*records.hidden_states[:-1], last_hidden_state),
            attentions=records.attentions,
        )


class VideoPrismClipModel(VideoPrismTextPreTrainedModel):
    """Video tower and text tower, whose embeddings are compared."""

    has_text_tower = True
    # The second as in google-deepmind/videoprism at d481d91, `videoprism/colabs/videoprism_video_text_demo.ipynb`.
    text_templates = ("{}", "a video of {}.")
    scalars_on_disk = ("logit_scale",)
    encodes_frames_separately = True

    def __init__(self, config: VideoPrismConfig):
        super().__init__(config)
        if config.vision_config.num_pooling_queries != 1:
            raise ValueError(
                "A video-text model compares one embedding of each video; `vision_config.num_pooling_queries` is "
                f"{config.vision_config.num_pooling_queries}."
            )
        self.video_model = VideoPrismVideoModel(config.vision_config)
        self.text_model = VideoPrismTextModel(config.text_config)
        self.logit_scale = None
        if config.logit_scale_init_value is not None:
            self.logit_scale = nn.Parameter(torch.full((1,), float(config.logit_scale_init_value)))
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.text_model.set_input_embeddings(value)

    @property
    def feature_tower(self) -> VideoPrismVisionModel:
        return self.video_model.vision_model

    def get_feature_map(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        return self.video_model.get_feature_map(pixel_values_videos)

    @can_return_tuple
    def get_text_features(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPooling:
        """The text tower's output.

        Args:
            input_ids: (B, L) token numbers.
            attention_mask: (B, L), 1 at tokens and 0 at padding.
            output_hidden_states, output_attentions: what to record, as for [`VideoPreTrainedModel`].
            **kwargs: as for [`VideoPrismTextModel`].

        Returns:
            What [`VideoPrismTextModel`] returns; `pooler_output` (B, D) holds the embeddings.
        """
        flags = self._flags(output_hidden_states, output_attentions)
        return self.text_model(input_ids, attention_mask=attention_mask, **kwargs, **flags, return_dict=True)

    @can_return_tuple
    def get_video_features(
        self,
        pixel_values_videos: torch.Tensor,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs,
    ) -> VideoPrismVideoOutput:
        """The video tower's output.

        Args:
            pixel_values_videos: (B, T, C, H, W), values in [0, 1].
            output_hidden_states, output_attentions: what to record, as for [`VideoPreTrainedModel`].
            **kwargs: as for [`VideoPrismVideoModel`].

        Returns:
            [`VideoPrismVideoOutput`]; `pooler_output` (B, D) holds the embeddings.
        """
        flags = self._flags(output_hidden_states, output_attentions)
        return self.video_model(pixel_values_videos, **kwargs, **flags, return_dict=True)

    def embed_videos(
        self, pixel_values_videos: torch.Tensor, padding_mask_videos: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The video embeddings of videos of any size.

        Args:
            pixel_values_videos: (B, T, C, H, W), values in [0, 1].
            padding_mask_videos: (B, T), 1 at frames of the video, as for [`VideoPrismVideoModel`].

        Returns:
            (B, D), float32, of length one if `vision_config.apply_l2norm` is on.
        """
        output = self.get_video_features(
            pixel_values_videos,
            interpolate_pos_encoding=True,
            padding_mask_videos=padding_mask_videos,
            return_dict=True,
        )
        return output.pooler_output.float()

    def embed_texts(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        return self.get_text_features(input_ids, attention_mask, return_dict=True).pooler_output.float()

    @with_own_parameters
    def compare(self, video_embeds: torch.Tensor, text_embeds: torch.Tensor) -> torch.Tensor:
        """Dot products over the learned temperature, or over the demonstrations' 0.01 where there is none.

        Args:
            video_embeds: (videos, D).
            text_embeds: (texts, D).

        Returns:
            (videos, texts), float32.
        """
        temperature = DEFAULT_TEMPERATURE if self.logit_scale is None else None
        return self._similarity(video_embeds.float(), text_embeds.float(), temperature)

    def encode_frames(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        return self.video_model.encode_frames(pixel_values_videos)

    def encode_clip(self, frames: torch.Tensor) -> torch.Tensor:
        return self.video_model._embed_features(self.video_model.encode_clip(frames)).float()

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        temperature: float | torch.Tensor | None = None,
        return_loss: bool = False,
        padding_mask_videos: torch.Tensor | None = None,
        output_frame_embeddings: bool = False,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> VideoPrismClipOutput:
        r"""Embed videos, texts or both, and compare them.

        Args:
            pixel_values_videos: (videos, T, C, H, W), values in [0, 1].
            input_ids: (texts, L) token numbers.
            attention_mask: (texts, L), 1 at tokens and 0 at padding.
            interpolate_pos_encoding: fit the position tables to videos of another length or size.
            temperature: scalar that similarities are divided by. By default the learned temperature, or 1 without
                one.
            return_loss: compute the contrastive loss over matching pairs: video i belongs to text i. In distributed
                training the pairs of all processes count, and each of them must ask for it.
            padding_mask_videos: (videos, T), 1 at frames of the video.
            output_frame_embeddings: pool every frame by itself as well.
            output_hidden_states, output_attentions: what to record, as for [`VideoPreTrainedModel`].

        Returns:
            [`VideoPrismClipOutput`].

        Raises:
            ValueError: neither videos nor texts, or a loss without pairs.
        """
        if pixel_values_videos is None and input_ids is None:
            raise ValueError("Give `pixel_values_videos`, `input_ids` or both.")
        if return_loss and (pixel_values_videos is None or input_ids is None):
            raise ValueError("`return_loss` needs `pixel_values_videos` and `input_ids`, pair by pair.")
        flags = self._flags(output_hidden_states, output_attentions)
        video = text = similarity = loss = None
        if pixel_values_videos is not None:
            video = self.video_model(
                pixel_values_videos,
                interpolate_pos_encoding=interpolate_pos_encoding,
                padding_mask_videos=padding_mask_videos,
                output_frame_embeddings=output_frame_embeddings,
                **flags,
                return_dict=True,
            )
        if input_ids is not None:
            text = self.text_model(input_ids, attention_mask=attention_mask, **flags, return_dict=True)
        if video is not None and text is not None:
            embeds = video.pooler_output, text.pooler_output
            similarity = self._similarity(*embeds, temperature)  # (videos, texts)
            loss = contrastive_loss(self._similarity(*gather_pairs(*embeds), temperature)) if return_loss else None
        return VideoPrismClipOutput(
            loss=loss,
            logits_per_video=None if similarity is None else similarity.softmax(0),
            logits_per_text=None if similarity is None else similarity.T.softmax(0),
            video_embeds=None if video is None else video.pooler_output,
            text_embeds=None if text is None else text.pooler_output,
            video_model_output=video,
            text_model_output=text,
            similarity_logits_per_video=similarity,
            similarity_logits_per_text=None if similarity is None else similarity.T,
        )

    def _similarity(
        self, video_embeds: torch.Tensor, text_embeds: torch.Tensor, temperature: float | torch.Tensor | None
    ) -> torch.Tensor:
        """Dot products (videos, texts) over a temperature, by default the learned one, if there is one."""
        similarity = video_embeds @ text_embeds.T
        if temperature is not None:
            return similarity / temperature
        return similarity if self.logit_scale is None else similarity * self.logit_scale.exp()


__all__ = ["VideoPrismClipModel", "VideoPrismTextModel"]
