"""Configuration of PE Video: text tower, temporal encoder, and the frame tower under it."""

import os
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.utils import logging

from ..pe_core.configuration_pe_vision import PeVisionConfig


logger = logging.get_logger(__name__)
AUDIO_VIDEO = "pe_audio_video"
PUBLISHED_TEXT = {"hidden_size": 1024, "intermediate_size": 2624, "num_hidden_layers": 22, "num_attention_heads": 16}


@strict
class PeVideoEncoderConfig(PreTrainedConfig):
    r"""Configuration of [`PeVideoEncoder`]: the frame tower and the temporal encoder over its embeddings.

    The defaults are those of transformers; the published models have four temporal layers. Field names and their
    meaning are those of transformers.

    Args:
        vision_config (`dict` or [`PeVisionConfig`], *optional*):
            Configuration of the frame tower; published directories have it as timm's name of its architecture.
        hidden_size (`int`, *optional*, defaults to 1792):
            Width of the temporal encoder.
        num_hidden_layers (`int`, *optional*, defaults to 6):
            Number of blocks.
        num_attention_heads (`int`, *optional*, defaults to 14):
            Number of attention heads of a block.
        num_key_value_heads (`int`, *optional*):
            Number of heads of keys and values, each of which serves several heads of queries; by default
            `num_attention_heads`.
        head_dim (`int`, *optional*, defaults to 128):
            Channels of a head.
        intermediate_size (`int`, *optional*, defaults to 4800):
            Hidden width of a block's MLP.
        hidden_act (`str`, *optional*, defaults to `"silu"`):
            Activation of the MLPs' gates.
        rope_parameters (`dict`, *optional*):
            `rope_theta`, the base of the rotary frequencies over time, 20000 by default, and `rope_type`, which is
            `"default"`.
        max_position_embeddings (`int`, *optional*, defaults to 10000):
            Number of frames that training knew. The model takes longer videos.
        attention_bias (`bool`, *optional*, defaults to `False`):
            Whether the projections of attention have biases.
        attention_dropout (`float`, *optional*, defaults to 0.0):
            Dropout of the attention probabilities.
        rms_norm_eps (`float`, *optional*, defaults to 1e-5):
            Epsilon of the norms.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the initial weights.

    Raises:
        ValueError: heads of keys that don't divide those of queries, an odd `head_dim`, a frame tower without
            embeddings, or another kind of rotary positions.

    Source: facebookresearch/perception_models at 3e352cca, `core/audio_visual_encoder/config.py`.
    """

    model_type = "pe_video_encoder"
    base_config_key = "video_config"
    sub_configs = {"vision_config": PeVisionConfig}

    vision_config: dict | PreTrainedConfig | None = None

    hidden_size: int = 1792
    num_hidden_layers: int = 6
    num_attention_heads: int = 14
    num_key_value_heads: int | None = None
    head_dim: int = 128
    intermediate_size: int = 4800
    hidden_act: str = "silu"

    rope_parameters: dict | None = None
    max_position_embeddings: int = 10000

    attention_bias: bool = False
    attention_dropout: float | int = 0.0
    rms_norm_eps: float = 1e-5
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if self.rope_parameters is None:
            self.rope_parameters = {"rope_theta": 20000, "rope_type": "default"}
        if not isinstance(self.vision_config, PreTrainedConfig):
            self.vision_config = PeVisionConfig(**_with_width(self.vision_config or {}))
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        if self.num_key_value_heads < 1 or self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"`num_attention_heads` ({self.num_attention_heads}) must be a multiple of `num_key_value_heads` "
                f"({self.num_key_value_heads})."
            )
        if self.head_dim % 2:
            raise ValueError(f"`head_dim` must be even, for pairs of channels turn together, got {self.head_dim}.")
        if not self.vision_config.projection_dim:
            raise ValueError(
                f"The encoder reads embeddings of frames, but `vision_config` ({self.vision_config.architecture}) has "
                "`projection_dim` 0. Take a tower of PE core."
            )
        if self.rope_parameters["rope_type"] != "default":
            raise ValueError(f'`rope_type` must be "default", got {self.rope_parameters["rope_type"]!r}.')

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """As the base class, but refuse the configuration of a PE audio-video model.

        Args:
            pretrained_model_name_or_path: a directory or the name of a repository with `config.json`, or the path of
                such a file.
            **kwargs: of `from_pretrained`: where and how to look for the file, such as `revision` and `subfolder`.

        Returns:
            The fields by name, and the arguments in `kwargs` that don't say how to look for the file.

        Raises:
            ValueError: the configuration is that of a PE audio-video model, whose encoder [`PeVideoModel`] reads.
        """
        fields, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if fields.get("model_type") == AUDIO_VIDEO:
            raise ValueError(
                f"{pretrained_model_name_or_path} holds a PE audio-video model. Load its video and text part with "
                "`PeVideoModel.from_pretrained`, and take its `video_encoder`."
            )
        return fields, kwargs

    def to_dict(self) -> dict[str, Any]:
        """As the base class, with the frame tower under the type that transformers has for towers of timm."""
        fields = super().to_dict()
        fields["vision_config"]["model_type"] = "timm_wrapper"
        return fields


def _with_width(vision_config: dict[str, Any]) -> dict[str, Any]:
    """A frame tower's fields with the width of its embeddings, where its labels or their names tell it.

    transformers gives a tower as many outputs as there are labels, but writes 1024 for `num_classes` whatever their
    number. Two labels are what it names where it has read no number.
    """
    fields, width = dict(vision_config), vision_config.get("num_labels")
    if width is None and len(fields.get("label_names") or ()) not in (0, 2):
        width = len(fields["label_names"])
    if width is not None:
        fields.pop("num_classes", None)
        fields["num_labels"] = width
    return fields


@strict
class PeVideoConfig(PreTrainedConfig):
    r"""Configuration of [`PeVideoModel`]: a ModernBERT text tower and a video encoder.

    Args:
        text_config (`dict` or `PreTrainedConfig`, *optional*):
            Configuration of the text tower: `ModernBertConfig`, with the sizes of the published models where left out.
        video_config (`dict` or [`PeVideoEncoderConfig`], *optional*):
            Configuration of the video encoder.
        projection_dim (`int`, *optional*):
            *Ours.* Width of the embeddings that are compared; by default that of the text tower.
        normalize_text (`bool`, *optional*, defaults to `False`):
            *Ours.* Whether text embeddings pass the text tower's final norm. The published models take them before it.

    Raises:
        ValueError: a text tower other than ModernBERT.

    Source: facebookresearch/perception_models at 3e352cca, `core/audio_visual_encoder/config.py`.
    """

    model_type = "pe_video"
    sub_configs = {"text_config": AutoConfig, "video_config": PeVideoEncoderConfig}

    text_config: dict | PreTrainedConfig | None = None
    video_config: dict | PreTrainedConfig | None = None
    projection_dim: int | None = None
    normalize_text: bool = False

    def __post_init__(self, **kwargs):
        if not isinstance(self.text_config, PreTrainedConfig):
            text = {"model_type": "modernbert", **PUBLISHED_TEXT, **(self.text_config or {})}
            self.text_config = AutoConfig.for_model(**text)
        if not isinstance(self.video_config, PreTrainedConfig):
            self.video_config = PeVideoEncoderConfig(**(self.video_config or {}))
        super().__post_init__(**kwargs)

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """As the base class; of the configuration of a PE audio-video model, its video and text part.

        Args:
            pretrained_model_name_or_path: a directory or the name of a repository with `config.json`, or the path of
                such a file.
            **kwargs: of `from_pretrained`: where and how to look for the file, such as `revision` and `subfolder`.

        Returns:
            The fields by name, and the arguments in `kwargs` that don't say how to look for the file.
        """
        fields, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if fields.get("model_type") != AUDIO_VIDEO:
            return fields, kwargs
        logger.warning_once(
            f"{pretrained_model_name_or_path} holds a PE audio-video model. Its `video_model` and `text_model` are "
            "read; its `audio_model`, its `audio_video_encoder` and the heads of other pairs than video and text are "
            "left out."
        )
        kept = {name: fields[name] for name in ("dtype", "torch_dtype", "text_config") if name in fields}
        video_config = (fields.get("audio_video_config") or {}).get("video_config")
        return {**kept, "model_type": cls.model_type, "video_config": video_config}, kwargs

    def validate_architecture(self) -> None:
        if self.text_config.model_type != "modernbert":
            raise ValueError(f"`text_config` must be of ModernBERT, got {self.text_config.model_type!r}.")


__all__ = ["PeVideoConfig", "PeVideoEncoderConfig"]
