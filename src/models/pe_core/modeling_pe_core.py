"""PE core: a vision tower and a text tower that share a space, for images, videos and texts.

Paper: https://arxiv.org/abs/2504.13181. Original code: facebookresearch/perception_models at 3e352cca,
`core/vision_encoder/pe.py`, `TextTransformer` and `CLIP`.

Shapes: B images, videos or texts; T frames with C channels and H × W pixels; L tokens of a text; N tokens of an image;
D channels of a token; E channels of an embedding.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import ModelOutput, can_return_tuple

from vidformers.layers.block import Records
from vidformers.layers.cpu import float32_products
from vidformers.layers.losses import contrastive_loss, gather_pairs
from vidformers.layers.norms import unit_length

from ..pretrained import NestedOutput, with_own_parameters
from .configuration_pe_core import PeCoreConfig, PeCoreTextConfig
from .modeling_pe_vision import (
    PeLayer,
    PeVisionModel,
    PeVisionOutput,
    PeVisionPreTrainedModel,
    check_video,
    mean_of_frames,
    real_frames,
    run_on_frames,
)


@dataclass
class PeCoreTextOutput(BaseModelOutputWithPooling):
    """What [`PeCoreTextModel`] computes.

    Args:
        last_hidden_state: (B, L, D), normalized.
        pooler_output: (B, D), of `last_hidden_state` the token that ends the text.
        hidden_states: (B, L, D) each: the input of every block and the output of the last one, not normalized.
        attentions: (B, heads, L, L) of every block.
        text_embeds: (B, E), `pooler_output` projected; not of length one.
    """

    text_embeds: torch.Tensor | None = None


@dataclass
class PeCoreOutput(NestedOutput):
    """What [`PeCoreModel`] computes. Fields of what the call did not give are `None`.

    Args:
        loss: scalar, when `return_loss` asked for it.
        logits_per_image: (images, texts), scaled cosines of the embeddings.
        logits_per_video: (videos, texts), likewise; under `normalize_frames` dot products whose video embeddings may
            be shorter than one.
        logits_per_text: (texts, images or videos), the same, transposed.
        text_embeds: (texts, E), of length one.
        image_embeds: (images, E), of length one.
        video_embeds: (videos, E), of length one, except under `normalize_frames`.
        text_model_output: a [`PeCoreTextOutput`].
        vision_model_output: a [`PeVisionOutput`], of the images, or of the frames of the videos, video after video,
            zero at frames that only fill the batch.
    """

    loss: torch.Tensor | None = None
    logits_per_image: torch.Tensor | None = None
    logits_per_video: torch.Tensor | None = None
    logits_per_text: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    image_embeds: torch.Tensor | None = None
    video_embeds: torch.Tensor | None = None
    text_model_output: PeCoreTextOutput | None = None
    vision_model_output: PeVisionOutput | None = None


class PeCorePreTrainedModel(PeVisionPreTrainedModel):
    """Weight initialization, loading and saving of PE core's models with text."""

    config_class = PeCoreConfig
    config: PeCoreConfig
    base_model_prefix = "model"
    input_modalities = ("image", "video", "text")

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """As the vision tower; the table of text positions has the deviation 1/√D too."""
        super()._init_weights(module)
        if isinstance(module, PeCoreTextModel):
            init.normal_(module.pos_embed, std=module.config.hidden_size**-0.5)
        elif isinstance(module, PeCoreModel):
            init.constant_(module.logit_scale, module.config.logit_scale_init_value)


class PeCoreTextModel(PeCorePreTrainedModel):
    """The text tower: a token sees those before it alone, and the one that ends a text stands for the whole of it."""

    config_class = PeCoreTextConfig
    config: PeCoreTextConfig
    base_model_prefix = "text_model"
    main_input_name = "input_ids"
    input_modalities = ("text",)
    _input_embed_layer = "token_embedding"

    def __init__(self, config: PeCoreTextConfig):
        super().__init__(config)
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.pos_embed = nn.Parameter(torch.zeros(1, config.max_position_embeddings, config.hidden_size))
        self.blocks = nn.ModuleList(PeLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.head = nn.Linear(config.hidden_size, config.projection_dim, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> PeCoreTextOutput:
        r"""Embed texts.

        Args:
            input_ids: (B, L) token numbers. The first token with the highest number of a text ends it; what comes
                after it, padding for one, changes nothing of the embeddings.
            output_hidden_states, output_attentions: what to record, as for [`PeVisionPreTrainedModel`].

        Returns:
            [`PeCoreTextOutput`].

        Raises:
            ValueError: texts longer than the table of positions.
        """
        length, most = input_ids.shape[1], self.config.max_position_embeddings
        if length > most:
            raise ValueError(f"Texts have {length} tokens, the model takes {most} at most. Cut them: truncation=True.")
        flags = self._flags(output_hidden_states, output_attentions)
        hidden_states = self.token_embedding(input_ids) + self.pos_embed[:, :length]  # (B, L, D)
        causal = torch.ones(length, length, dtype=torch.bool, device=input_ids.device).tril()[None, None]
        records = Records(hidden_states, **flags)
        for block in self.blocks:
            hidden_states, probabilities = block(
                hidden_states, mask=causal, output_attentions=flags["output_attentions"]
            )
            records.add(hidden_states, probabilities)
        last_hidden_state = self.norm(hidden_states)
        texts = torch.arange(input_ids.shape[0], device=input_ids.device)
        pooled = last_hidden_state[texts, input_ids.argmax(-1)]  # (B, D)
        return PeCoreTextOutput(
            last_hidden_state=last_hidden_state,
            pooler_output=pooled,
            hidden_states=records.hidden_states,
            attentions=records.attentions,
            text_embeds=self.head(pooled),
        )


class PeCoreModel(PeCorePreTrainedModel):
    """Vision tower and text tower, whose embeddings are compared. A video is the mean of its frames."""

    has_text_tower = True
    # Of facebookresearch/perception_models at 3e352cca, "k400_val" in
    # `apps/pe/clip_benchmark/datasets/en_zeroshot_classification_templates.json`, those that take a whole sentence.
    text_templates = ("{}", "a photo of {}.", "a video of {}.")
    scalars_on_disk = ("logit_scale",)
    encodes_frames_separately = True

    def __init__(self, config: PeCoreConfig):
        super().__init__(config)
        self.vision_model = PeVisionModel(config.vision_config)
        self.text_model = PeCoreTextModel(config.text_config)
        self.logit_scale = nn.Parameter(torch.full((1,), float(config.logit_scale_init_value)))
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.text_model.set_input_embeddings(value)

    @can_return_tuple
    def get_image_features(
        self,
        pixel_values: torch.Tensor,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> BaseModelOutputWithPooling:
        """Embed images.

        Args:
            pixel_values: (B, C, H, W), values in [-1, 1].
            output_hidden_states, output_attentions: what to record, as for [`PeVisionPreTrainedModel`].

        Returns:
            The vision tower's output: `last_hidden_state` (B, N, D), the records, and as `pooler_output` (B, E) the
            image embeddings, not of length one.

        Raises:
            ValueError: an input of the wrong shape, or one that holds no patch.
        """
        flags = self._flags(output_hidden_states, output_attentions)
        output = self.vision_model(pixel_values, **flags, return_dict=True)
        return _with_pooler(output, output.image_embeds)

    @can_return_tuple
    def get_text_features(
        self,
        input_ids: torch.Tensor,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> BaseModelOutputWithPooling:
        """Embed texts.

        Args:
            input_ids: (B, L) token numbers, as for [`PeCoreTextModel`].
            output_hidden_states, output_attentions: what to record, as for [`PeVisionPreTrainedModel`].

        Returns:
            The text tower's output: `last_hidden_state` (B, L, D), the records, and as `pooler_output` (B, E) the
            text embeddings, not of length one.

        Raises:
            ValueError: texts longer than the table of positions.
        """
        flags = self._flags(output_hidden_states, output_attentions)
        output = self.text_model(input_ids, **flags, return_dict=True)
        return _with_pooler(output, output.text_embeds)

    @can_return_tuple
    def get_video_features(
        self,
        pixel_values_videos: torch.Tensor,
        padding_mask_videos: torch.Tensor | None = None,
        normalize_frames: bool = False,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> BaseModelOutputWithPooling:
        """Embed videos as the mean of their frames, as the original's `encode_video`.

        Args:
            pixel_values_videos: (B, T, C, H, W), values in [-1, 1].
            padding_mask_videos: (B, T), 1 at frames of the video and 0 at frames that only fill the batch, which
                count nothing.
            normalize_frames: bring every frame's embedding to length one before the mean, whose length is not one
                then.
            output_hidden_states, output_attentions: what to record, as for [`PeVisionPreTrainedModel`].

        Returns:
            The vision tower's output for (B·T, …) frames, video after video, with the video embeddings (B, E) as
            `pooler_output`.

        Raises:
            ValueError: an input of the wrong shape, or a video without any real frame.
        """
        flags = self._flags(output_hidden_states, output_attentions)
        output, embeds = self._average_frames(pixel_values_videos, padding_mask_videos, normalize_frames, **flags)
        return _with_pooler(output, embeds)

    @property
    def feature_tower(self) -> PeVisionModel:
        return self.vision_model

    def get_feature_map(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        """The vision tower's features of the patches of every frame, which know nothing of other frames.

        Args:
            pixel_values_videos: (B, T, C, H, W), values in [-1, 1].

        Returns:
            (B, T, h, w, D).
        """
        return self.vision_model.get_feature_map(pixel_values_videos)

    def get_patch_embeds(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        """Embed every patch as a frame is embedded, pooled by itself, so that it can be compared with texts.

        The attention of the pooler sees one patch at a time, which leaves its values; all that follows stays. The
        products with `embed_texts` are cosines, by which words segment a picture.

        Args:
            pixel_values_videos: (B, T, C, H, W), values in [-1, 1]; images as videos of one frame.

        Returns:
            (B, T, h, w, E), float32, of length one.
        """
        tower, features = self.vision_model, self.get_feature_map(pixel_values_videos)  # (B, T, h, w, D)
        with float32_products(self.dtype, self.device):
            patches = features.flatten(0, 3)  # (B·T·h·w, D)
            embeds = tower.head(patches if tower.attn_pool is None else tower.attn_pool(patches[:, None]))
        return unit_length(embeds.float()).unflatten(0, features.shape[:4])

    def embed_videos(
        self, pixel_values_videos: torch.Tensor, padding_mask_videos: torch.Tensor | None = None
    ) -> torch.Tensor:
        output = self.get_video_features(pixel_values_videos, padding_mask_videos, return_dict=True)
        return unit_length(output.pooler_output.float())

    def embed_texts(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """One vector for each text, of length one.

        Args:
            input_ids: (B, L) token numbers, as for [`PeCoreTextModel`].
            attention_mask: (B, L), not read: what follows the end of a text changes nothing.

        Returns:
            (B, E), float32.
        """
        return unit_length(self.get_text_features(input_ids, return_dict=True).pooler_output.float())

    @with_own_parameters
    def compare(self, video_embeds: torch.Tensor, text_embeds: torch.Tensor) -> torch.Tensor:
        return self._logits(video_embeds.float(), text_embeds.float())

    def encode_frames(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        """Embed frames one by one.

        Args:
            pixel_values_videos: (B, T, C, H, W), values in [-1, 1].

        Returns:
            (B, T, E), not of length one.
        """
        check_video(pixel_values_videos, self.config.vision_config.num_channels)
        embeds = self.vision_model(pixel_values_videos.flatten(0, 1), return_dict=True).image_embeds
        return embeds.unflatten(0, pixel_values_videos.shape[:2])

    def encode_clip(self, frames: torch.Tensor) -> torch.Tensor:
        return unit_length(frames.mean(1).float())

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        padding_mask_videos: torch.Tensor | None = None,
        normalize_frames: bool = False,
        return_loss: bool = False,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> PeCoreOutput:
        r"""Embed texts, and images or videos, and compare them.

        Args:
            input_ids: (texts, L) token numbers.
            pixel_values: (images, C, H, W), values in [-1, 1].
            pixel_values_videos: (videos, T, C, H, W), likewise, instead of images.
            padding_mask_videos: (videos, T), 1 at frames of the video and 0 at frames that only fill the batch.
            normalize_frames: as for [`~PeCoreModel.get_video_features`]; the mean is not normalized again then, as in
                the original's retrieval benchmarks.
            return_loss: compute the contrastive loss over matching pairs: text i belongs to image or video i. In
                distributed training the pairs of all processes count, and each of them must ask for it.
            output_hidden_states, output_attentions: what to record, as for [`PeVisionPreTrainedModel`].

        Returns:
            [`PeCoreOutput`].

        Raises:
            ValueError: nothing to embed, images and videos in one call, or a loss without pairs.
        """
        if pixel_values is not None and pixel_values_videos is not None:
            raise ValueError("Give `pixel_values` or `pixel_values_videos`: a call compares texts with one of them.")
        has_vision = pixel_values is not None or pixel_values_videos is not None
        if input_ids is None and (return_loss or not has_vision):
            raise ValueError("Give `input_ids`, `pixel_values` or `pixel_values_videos`; a loss needs texts as well.")
        if return_loss and not has_vision:
            raise ValueError("`return_loss` needs images or videos beside `input_ids`, pair by pair.")
        flags = self._flags(output_hidden_states, output_attentions)
        text = vision = text_embeds = image_embeds = video_embeds = logits = loss = None
        if input_ids is not None:
            text = self.text_model(input_ids, **flags, return_dict=True)
            text_embeds = unit_length(text.text_embeds)
        if pixel_values is not None:
            vision = self.vision_model(pixel_values, **flags, return_dict=True)
            image_embeds = unit_length(vision.image_embeds)
        if pixel_values_videos is not None:
            vision, video_embeds = self._average_frames(
                pixel_values_videos, padding_mask_videos, normalize_frames, **flags
            )
            video_embeds = video_embeds if normalize_frames else unit_length(video_embeds)
        if input_ids is not None and has_vision:
            visual_embeds = video_embeds if image_embeds is None else image_embeds
            logits = self._logits(visual_embeds, text_embeds)
            if return_loss:
                loss = contrastive_loss(self._logits(*gather_pairs(visual_embeds, text_embeds)))
        return PeCoreOutput(
            loss=loss,
            logits_per_image=None if image_embeds is None else logits,
            logits_per_video=None if video_embeds is None else logits,
            logits_per_text=None if logits is None else logits.T,
            text_embeds=text_embeds,
            image_embeds=image_embeds,
            video_embeds=video_embeds,
            text_model_output=text,
            vision_model_output=vision,
        )

    def _average_frames(
        self, video: torch.Tensor, padding_mask: torch.Tensor | None, normalize_frames: bool, **flags: bool
    ) -> tuple[PeVisionOutput, torch.Tensor]:
        """The vision tower's output for the frames of videos, and the means (B, E) of their embeddings."""
        check_video(video, self.config.vision_config.num_channels)
        real = real_frames(padding_mask, video)
        output = run_on_frames(self.vision_model, video, real, **flags)
        embeds = unit_length(output.image_embeds) if normalize_frames else output.image_embeds
        embeds = embeds.unflatten(0, video.shape[:2])  # (B, T, E)
        return output, mean_of_frames(embeds, real)

    def _logits(self, visual: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Scaled dot products (images or videos, texts) of embeddings (…, E)."""
        return visual @ text.T * self.logit_scale.exp()


def _with_pooler(output: ModelOutput, embeds: torch.Tensor) -> BaseModelOutputWithPooling:
    """A tower's output with the embeddings where transformers' models have them."""
    return BaseModelOutputWithPooling(
        last_hidden_state=output.last_hidden_state,
        pooler_output=embeds,
        hidden_states=output.hidden_states,
        attentions=output.attentions,
    )


__all__ = ["PeCoreModel", "PeCorePreTrainedModel", "PeCoreTextModel"]
