"""Attentive probes on V-JEPA 2: video classification and action anticipation.

Paper: V-JEPA 2 (https://arxiv.org/abs/2506.09985). Original code: facebookresearch/vjepa2 at c2963a47,
`evals`. `attentive_pooler.py` has the pooler.

Shapes: B videos of T frames with C channels and H × W pixels; N tokens with D channels.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers.utils import ModelOutput, can_return_tuple

from vidformers.layers.patchify import Grid, on_grid

from ..attentive_pooler import AttentivePooler, ProbeFeatures, classify_tokens
from ..pretrained import ClassifiesViews, HasClassifier
from .configuration_vjepa2 import VJEPA2Config
from .modeling_vjepa2 import (
    VJEPA2Model,
    VJEPA2PreTrainedModel,
    VJEPA2WithMaskedInputModelOutput,
    predicted_size,
)


@dataclass
class VJEPA2VideoClassifierOutput(ModelOutput):
    """What [`VJEPA2ForVideoClassification`] computes.

    Args:
        loss: scalar, when labels were given.
        logits: (B, num_labels). With several views, the logarithm of the mean of the views' probabilities.
        hidden_states: of the encoder, over all clips: (B·clips, N, D).
        attentions: of the encoder, likewise: (B·clips, heads, N, N).
        view_logits: (B, views, num_labels), when the input had views.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    view_logits: torch.Tensor | None = None


@dataclass
class VJEPA2ActionAnticipationOutput(ModelOutput):
    """What [`VJEPA2ForActionAnticipation`] computes.

    Args:
        loss: scalar, the sum over the label sets that were given.
        logits: action logits (B, num_labels).
        verb_logits: (B, num_verb_labels), or `None` without verb classes.
        noun_logits: (B, num_noun_labels), or `None` without noun classes.
        last_hidden_state: the tokens that the probe read (B, N', D): observed ones, then predicted ones.
        hidden_states: of the encoder, (B, N, D).
        attentions: of the encoder, (B, heads, N, N).
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    verb_logits: torch.Tensor | None = None
    noun_logits: torch.Tensor | None = None
    last_hidden_state: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class VJEPA2ProbeModel(VJEPA2PreTrainedModel):
    """Base of the models with a probe: how its weights start."""

    has_probe = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, AttentivePooler):
            module.initialize(self.config.initializer_range)


class VJEPA2ForVideoClassification(ClassifiesViews, VJEPA2ProbeModel):
    """The encoder with an attentive probe and a linear classifier. It holds no predictor."""

    _keys_to_ignore_on_load_unexpected = [r"^(vjepa2\.)?predictor\."]

    def __init__(self, config: VJEPA2Config):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.vjepa2 = VJEPA2Model(config, add_predictor=False)
        self.pooler = AttentivePooler(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @staticmethod
    def probe_tokens(encoded: VJEPA2WithMaskedInputModelOutput, num_segments: int) -> torch.Tensor:
        """What one probe sees: the levels of every clip, and the clips of every `num_segments`, one after another.

        Args:
            encoded: of B·segments clips; its `out_layer_hidden_states` where there are any, else the last layer.
            num_segments: number of clips that belong together.

        Returns:
            (B, segments·levels·N, D).
        """
        levels = encoded.out_layer_hidden_states or (encoded.last_hidden_state,)
        tokens = torch.cat(levels, dim=1)  # (B·segments, levels·N, D)
        return tokens.unflatten(0, (-1, num_segments)).flatten(1, 2)

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: torch.Tensor,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> VJEPA2VideoClassifierOutput:
        r"""Classify videos.

        Args:
            pixel_values_videos: (B, T, C, H, W), images (B, C, H, W), or several clips of each video as the original
                evaluates them (`evals/video_classification_frozen`): (B, segments, T, C, H, W) lets one probe see all
                segments at once; (B, views, segments, T, C, H, W) also averages probabilities over views.
            labels: (B,) class numbers.
            output_hidden_states: see [`VideoPreTrainedModel`]; of the encoder.
            output_attentions: see [`VideoPreTrainedModel`]; of the encoder.

        Returns:
            [`VJEPA2VideoClassifierOutput`].
        """
        features = self.probe_features(pixel_values_videos, **self._flags(output_hidden_states, output_attentions))
        return self.probe_output(features, labels=labels)

    def probe_features(self, pixel_values_videos: torch.Tensor, **flags: bool) -> ProbeFeatures:
        """What a probe reads of videos, which any number of heads can share; arguments are those of `forward`."""
        num_videos, *clips = pixel_values_videos.shape[: max(pixel_values_videos.ndim - 4, 1)]
        encoded = self.vjepa2(
            pixel_values_videos.flatten(0, len(clips)),  # (B·views·segments, T, C, H, W)
            skip_predictor=True,
            out_layers=self.config.out_layers,
            return_dict=True,
            **flags,
        )
        tokens = self.probe_tokens(encoded, num_segments=clips[-1] if clips else 1)
        num_views = clips[0] if len(clips) == 2 else None
        return ProbeFeatures(tokens, encoded.hidden_states, encoded.attentions, num_views)

    def probe_output(
        self, features: ProbeFeatures, labels: torch.Tensor | None = None, head: nn.Module | None = None
    ) -> VJEPA2VideoClassifierOutput:
        """What a head makes of features: this model's own, or another with a `pooler` and a `classifier`."""
        logits, view_logits = classify_tokens(head or self, features)
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        return VJEPA2VideoClassifierOutput(
            loss=loss,
            logits=logits,
            hidden_states=features.hidden_states,
            attentions=features.attentions,
            view_logits=view_logits,
        )

    @staticmethod
    def probe_logits(output: VJEPA2VideoClassifierOutput) -> dict[str, torch.Tensor]:
        """The logits that a training compares with labels, by the argument of `forward` that has these.

        Returns:
            `labels`: (B, num_labels), or (B, views, num_labels), whose losses add up as the original's do.
        """
        return {"labels": output.logits if output.view_logits is None else output.view_logits}


class VJEPA2ForActionAnticipation(HasClassifier, VJEPA2ProbeModel):
    """Encoder and predictor with a probe that reads observed and predicted tokens (EPIC-KITCHENS-100).

    Source: `evals/action_anticipation_frozen`: `AnticipativeWrapper` and `AttentiveClassifier`.
    """

    classifiers = {
        "action_classifier": "num_labels",
        "verb_classifier": "num_verb_labels",
        "noun_classifier": "num_noun_labels",
    }

    def __init__(self, config: VJEPA2Config):
        super().__init__(config)
        self.vjepa2 = VJEPA2Model(config)
        if self.vjepa2.predictor is None:
            raise ValueError("Action anticipation needs the predictor; set `config.use_predictor` to True.")
        self.pooler = AttentivePooler(config, num_queries=3 if config.num_verb_labels else 1)
        if config.num_verb_labels:
            self.verb_classifier = nn.Linear(config.hidden_size, config.num_verb_labels)
            self.noun_classifier = nn.Linear(config.hidden_size, config.num_noun_labels)
        self.action_classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: torch.Tensor,
        anticipation_times: torch.Tensor,
        labels: torch.Tensor | None = None,
        verb_labels: torch.Tensor | None = None,
        noun_labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> VJEPA2ActionAnticipationOutput:
        r"""Predict the action that starts some time after a video's end.

        Args:
            pixel_values_videos: (B, T, C, H, W), sampled at `config.anticipation_frames_per_second`.
            anticipation_times: (B,) seconds between the clip's end and the action.
            labels: (B,) action numbers.
            verb_labels: (B,) verb numbers.
            noun_labels: (B,) noun numbers.
            output_hidden_states: see [`VideoPreTrainedModel`]; of the encoder.
            output_attentions: see [`VideoPreTrainedModel`]; of the encoder.

        Returns:
            [`VJEPA2ActionAnticipationOutput`].
        """
        features = self.probe_features(
            pixel_values_videos, anticipation_times, **self._flags(output_hidden_states, output_attentions)
        )
        return self.probe_output(features, labels=labels, verb_labels=verb_labels, noun_labels=noun_labels)

    def probe_features(
        self, pixel_values_videos: torch.Tensor, anticipation_times: torch.Tensor, **flags: bool
    ) -> ProbeFeatures:
        """What a probe reads of videos, which any number of heads can share; arguments are those of `forward`."""
        encoded = self.vjepa2(pixel_values_videos, skip_predictor=True, return_dict=True, **flags)
        observed = encoded.last_hidden_state  # (B, N, D)
        grid = Grid(*on_grid(observed, pixel_values_videos, self.config.patch_size).shape[1:4])
        tokens = self.anticipate(observed, grid, anticipation_times)  # (B, N', D)
        return ProbeFeatures(tokens, encoded.hidden_states, encoded.attentions)

    def probe_output(
        self, features: ProbeFeatures, head: nn.Module | None = None, **labels: torch.Tensor | None
    ) -> VJEPA2ActionAnticipationOutput:
        """What a head makes of features: this model's own, or another with its modules."""
        head = head or self
        pooled = head.pooler(features.tokens)  # (B, 1 or 3, D)
        logits = {"logits": head.action_classifier(pooled[:, -1])}
        if self.config.num_verb_labels:
            logits["verb_logits"] = head.verb_classifier(pooled[:, 0])
            logits["noun_logits"] = head.noun_classifier(pooled[:, 1])

        losses = [
            nn.functional.cross_entropy(logits[name.replace("labels", "logits")], target)
            for name, target in labels.items()
            if target is not None and name.replace("labels", "logits") in logits
        ]
        return VJEPA2ActionAnticipationOutput(
            loss=sum(losses) if losses else None,
            **logits,
            last_hidden_state=features.tokens,
            hidden_states=features.hidden_states,
            attentions=features.attentions,
        )

    @staticmethod
    def probe_logits(output: VJEPA2ActionAnticipationOutput) -> dict[str, torch.Tensor]:
        """The logits that a training compares with labels, by the argument of `forward` that has these."""
        logits = {
            "labels": output.logits,
            "verb_labels": output.verb_logits,
            "noun_labels": output.noun_logits,
        }
        return {name: each for name, each in logits.items() if each is not None}

    def anticipate(self, observed: torch.Tensor, grid: Grid, anticipation_times: torch.Tensor) -> torch.Tensor:
        """Append predicted tokens of the future to those of the observed video.

        Args:
            observed: (B, N, D) encoder features.
            grid: their grid.
            anticipation_times: (B,) seconds.

        Returns:
            (B, N', D); the observed tokens are left out if `config.anticipation_use_encoder_tokens` is off.
        """
        config = self.config
        num_videos, num_observed, width = observed.shape
        if predicted_size(config) != width:
            raise ValueError(
                "Action anticipation puts predicted tokens beside observed ones, so that their width "
                f"({predicted_size(config)}) must be `hidden_size` ({width}): leave `teacher_embed_dim` and "
                "`num_distillation_outputs` at their defaults."
            )
        tokens_per_step = (config.crop_size // config.patch_size) ** 2
        num_output_steps = max(config.anticipation_num_output_frames, config.tubelet_size) // config.tubelet_size
        num_predicted = num_output_steps * tokens_per_step

        skipped_steps = anticipation_times * config.anticipation_frames_per_second / config.tubelet_size
        first = num_observed + tokens_per_step * skipped_steps.to(observed.device, torch.long)  # (B,)
        context_ids = torch.arange(num_observed, device=observed.device).expand(num_videos, -1)
        target_ids = first[:, None] + torch.arange(num_predicted, device=observed.device)

        tokens = [observed] if config.anticipation_use_encoder_tokens else []
        context = observed
        for _ in range(config.anticipation_num_steps):
            # The window slides over the features but its positions stay, as in the original.
            predicted = self.vjepa2.predictor(
                context, context_ids=context_ids, target_ids=target_ids, grid=grid
            ).last_hidden_state  # (B, num_predicted, D)
            tokens.append(predicted)
            context = torch.cat([context[:, num_predicted:], predicted], dim=1)
        return torch.cat(tokens, dim=1)


__all__ = ["VJEPA2ForActionAnticipation", "VJEPA2ForVideoClassification"]
