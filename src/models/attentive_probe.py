"""An attentive probe on a frozen encoder of any family, by what every model promises: features on a grid of tokens.

It is the head of V-JEPA 2's probes. That family has classes of its own with it, which transformers loads, too.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple

from .attentive_pooler import AttentivePooler, ProbeFeatures, classify_tokens
from .pretrained import ClassifiesViews, VideoPreTrainedModel


@strict
class AttentiveProbeConfig(PreTrainedConfig):
    r"""Configuration of [`AttentiveProbeForVideoClassification`].

    Args:
        encoder_config (`dict` or `PreTrainedConfig`):
            Configuration of the encoder, of any family.
        hidden_size (`int`, *optional*):
            Channels of its tokens; by default its own field of that name.
        num_pooler_layers (`int`, *optional*, defaults to 3):
            Number of self-attention blocks before the cross-attention.
        pooler_num_attention_heads (`int`, *optional*, defaults to 16):
            Number of attention heads of the probe.
        pooler_layer_norm_eps (`float`, *optional*, defaults to 1e-5):
            Epsilon of its layer norms.
        attention_dropout (`float`, *optional*, defaults to 0.0):
            Dropout of its attention probabilities.
        hidden_act (`str`, *optional*, defaults to `"gelu"`):
            Activation of its MLPs.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of new weights.
    """

    model_type = "attentive_probe"
    sub_configs = {"encoder_config": AutoConfig}
    has_no_defaults_at_init = True
    keys_to_ignore_at_inference = ["view_logits"]

    encoder_config: dict | PreTrainedConfig | None = None
    hidden_size: int | None = None
    num_pooler_layers: int = 3
    pooler_num_attention_heads: int = 16
    pooler_layer_norm_eps: float = 1e-5
    attention_dropout: float | int = 0.0
    hidden_act: str = "gelu"
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        if isinstance(self.encoder_config, dict):
            self.encoder_config = AutoConfig.for_model(**self.encoder_config)
        elif self.encoder_config is not None:
            self.encoder_config = copy.deepcopy(
                self.encoder_config
            )  # The base class changes how it computes attention.
        else:
            raise ValueError("A probe needs the configuration of its encoder, `encoder_config`.")
        if self.hidden_size is None:
            self.hidden_size = self.encoder_config.hidden_size
        super().__post_init__(**kwargs)


@dataclass
class AttentiveProbeOutput(ModelOutput):
    """What [`AttentiveProbeForVideoClassification`] computes.

    Args:
        loss: scalar, when labels were given.
        logits: (B, num_labels). With several views, the logarithm of the mean of the views' probabilities.
        view_logits: (B, views, num_labels), when the input had views.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    view_logits: torch.Tensor | None = None


class AttentiveProbeForVideoClassification(ClassifiesViews, VideoPreTrainedModel):
    """An encoder of any family with an attentive probe and a linear classifier on the tokens of its feature map.

    Args:
        config: of the probe and its encoder.
        encoder: a model to put there; by default one of the configuration is made.
    """

    config_class = AttentiveProbeConfig
    config: AttentiveProbeConfig
    base_model_prefix = "encoder"
    main_input_name = "pixel_values_videos"
    input_modalities = ("video",)
    has_probe = True
    _no_split_modules = ["PoolerSelfAttentionLayer", "PoolerCrossAttentionLayer"]

    def __init__(self, config: AttentiveProbeConfig, encoder: VideoPreTrainedModel | None = None):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.encoder = AutoModel.from_config(config.encoder_config) if encoder is None else encoder
        self.pooler = AttentivePooler(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """As V-JEPA 2's probes begin. The encoder's weights are the encoder's business."""
        if isinstance(module, nn.Linear):
            init.trunc_normal_(module.weight, std=self.config.initializer_range)
            init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, AttentivePooler):
            module.initialize(self.config.initializer_range)

    @property
    def frames_per_clip(self) -> int | None:
        return self.encoder.frames_per_clip

    @property
    def frames_per_token(self) -> int:
        return self.encoder.frames_per_token

    @property
    def feature_tower(self) -> VideoPreTrainedModel:
        return self.encoder.feature_tower

    def get_feature_map(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        return self.encoder.get_feature_map(pixel_values_videos)

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        padding_mask_videos: torch.Tensor | None = None,
    ) -> AttentiveProbeOutput:
        r"""Classify videos.

        Args:
            pixel_values_videos: (B, T, C, H, W); (B, segments, T, C, H, W), whose segments the probe sees at once; or
                (B, views, segments, T, C, H, W), which averages probabilities over views.
            labels: (B,) class numbers.
            pixel_values: (B, T, C, H, W) and so on, the same under the name that VideoMAE's processor gives it.
            padding_mask_videos: (B, T), as processors of PE make it. Every frame must be real.

        Returns:
            [`AttentiveProbeOutput`].

        Raises:
            ValueError: not exactly one of both videos, or padding frames.
        """
        if (pixel_values_videos is None) == (pixel_values is None):
            raise ValueError("Give exactly one of `pixel_values_videos` and `pixel_values`.")
        if padding_mask_videos is not None and not padding_mask_videos.all():
            raise ValueError("A probe takes no videos with padding frames: classify videos of one length at a time.")
        features = self.probe_features(pixel_values if pixel_values_videos is None else pixel_values_videos)
        return self.probe_output(features, labels=labels)

    def probe_features(self, pixel_values_videos: torch.Tensor) -> ProbeFeatures:
        """The tokens of videos, those of the clips of a view one after another; input as for `forward`."""
        _, *clips = pixel_values_videos.shape[:-4]
        tokens = self.get_feature_map(pixel_values_videos.flatten(0, len(clips))).flatten(1, 3)  # (B·clips, N, D)
        tokens = tokens.unflatten(0, (-1, clips[-1] if clips else 1)).flatten(1, 2)  # (B·views, segments·N, D)
        return ProbeFeatures(tokens, num_views=clips[0] if len(clips) == 2 else None)

    def probe_output(
        self, features: ProbeFeatures, labels: torch.Tensor | None = None, head: nn.Module | None = None
    ) -> AttentiveProbeOutput:
        """What a head makes of features: this model's own, or another with a `pooler` and a `classifier`."""
        logits, view_logits = classify_tokens(head or self, features)
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        return AttentiveProbeOutput(loss=loss, logits=logits, view_logits=view_logits)

    @staticmethod
    def probe_logits(output: AttentiveProbeOutput) -> dict[str, torch.Tensor]:
        """The logits that a training compares with labels; see [`VideoPreTrainedModel`]."""
        return {"labels": output.logits if output.view_logits is None else output.view_logits}


__all__ = ["AttentiveProbeConfig", "AttentiveProbeForVideoClassification"]
