"""Configuration of PE Video: text tower, temporal encoder, and the frame tower under it."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec


TOWERS = {
    "vit_pe_core_tiny_patch16_384": {"img_size": 384, "patch_size": 16, "embed_dim": 192, "depth": 12, "num_heads": 3},
    "vit_pe_core_small_patch16_384": {"img_size": 384, "patch_size": 16, "embed_dim": 384, "depth": 12, "num_heads": 6},
    "vit_pe_core_base_patch16_224": {"img_size": 224, "patch_size": 16, "embed_dim": 768, "depth": 12, "num_heads": 12},
    "vit_pe_core_large_patch14_336": {
        "img_size": 336,
        "patch_size": 14,
        "embed_dim": 1024,
        "depth": 24,
        "num_heads": 16,
    },
    "vit_pe_core_gigantic_patch14_448": {
        "img_size": 448,
        "patch_size": 14,
        "embed_dim": 1536,
        "depth": 50,
        "num_heads": 16,
        "mlp_ratio": 8960 / 1536,
        "class_token": False,
    },
}
"""What timm's names of the towers stand for, in the words of its arguments, which `model_args` may override."""

SHARED_ARGUMENTS = {
    "in_chans": 3,
    "mlp_ratio": 4.0,
    "class_token": True,
    "init_values": None,
    "attn_pool_num_heads": 8,
    "attn_pool_mlp_ratio": 4.0,
}
WITHOUT_EFFECT = ("ref_feat_shape", "dynamic_img_size", "rope_grid_offset", "rope_grid_indexing", "attn_type")
"""Arguments of timm that only say how it reproduces the original's positions."""


@strict
class PeVideoVisionConfig(PreTrainedConfig):
    r"""Configuration of the frame tower, a PE core vision transformer, as published directories write it.

    They name the tower by its architecture in timm; the sizes that follow from the name, and from `model_args` where
    it overrides them, are the properties of this class, and timm isn't needed to read them.

    Args:
        architecture (`str`, *optional*, defaults to `"vit_pe_core_large_patch14_336"`):
            timm's name of the tower: `vit_pe_core_` with `tiny_patch16_384`, `small_patch16_384`, `base_patch16_224`,
            `large_patch14_336` or `gigantic_patch14_448`.
        model_args (`dict`, *optional*):
            timm's arguments that differ from those of the architecture: `img_size`, `patch_size`, `in_chans`,
            `embed_dim`, `depth`, `num_heads`, `mlp_ratio`, `class_token`, `init_values`, `attn_pool_num_heads`.
        num_classes (`int`, *optional*, defaults to 1024):
            Width of a frame's embedding, also written `num_labels`.
        do_pooling (`bool`, *optional*, defaults to `True`):
            Not read, here or in transformers: frames are always pooled.
        global_pool (`str`, *optional*, defaults to `"map"`):
            How a frame's tokens are pooled: by attention.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the initial weights.

    Raises:
        ValueError: an architecture or an argument that this tower doesn't have.
    """

    model_type = "timm_wrapper"
    base_config_key = "vision_config"

    architecture: str = "vit_pe_core_large_patch14_336"
    model_args: dict[str, Any] | None = None
    do_pooling: bool = True
    global_pool: str = "map"
    initializer_range: float = 0.02

    hidden_act = "gelu"
    layer_norm_eps = 1e-5
    rope_theta = 10000.0

    def __post_init__(self, **kwargs):
        num_classes, label_names = kwargs.pop("num_classes", None), kwargs.pop("label_names", None)
        if kwargs.get("num_labels") is None and self.id2label is None:
            # transformers writes the names of two labels where it read no number of them.
            named = len(label_names or ()) not in (0, 2)
            kwargs["num_labels"] = len(label_names) if named else num_classes or 1024
        super().__post_init__(**kwargs)

    def validate_architecture(self):
        if self.architecture not in TOWERS:
            raise ValueError(f"`architecture` must be one of {', '.join(TOWERS)}, got {self.architecture!r}.")
        if self.global_pool != "map":
            raise ValueError(f'`global_pool` must be "map", pooling by attention, got {self.global_pool!r}.')
        known = {**SHARED_ARGUMENTS, **TOWERS[self.architecture], **dict.fromkeys(WITHOUT_EFFECT)}
        unknown = sorted(set(self.model_args or ()) - set(known))
        if unknown:
            raise ValueError(f"`model_args` has {', '.join(unknown)}; the tower knows {', '.join(known)}.")
        if self._argument("attn_pool_mlp_ratio") != 4:
            raise ValueError(f"`attn_pool_mlp_ratio` must be 4, as in every PE core tower, got {self.model_args}.")

    def to_dict(self) -> dict[str, Any]:
        """With the embedding's width under both names that readers look for, and without names of labels."""
        fields = super().to_dict()
        for name in ("id2label", "label2id"):
            fields.pop(name, None)
        return {**fields, "num_classes": self.num_labels, "num_labels": self.num_labels}

    def _argument(self, name: str) -> Any:
        return {**SHARED_ARGUMENTS, **TOWERS[self.architecture], **(self.model_args or {})}[name]

    @property
    def image_size(self) -> int:
        """Height and width of the training frames, in pixels."""
        return self._argument("img_size")

    @property
    def patch_size(self) -> int:
        """Height and width of a patch, in pixels."""
        return self._argument("patch_size")

    @property
    def num_channels(self) -> int:
        """Number of colour channels."""
        return self._argument("in_chans")

    @property
    def hidden_size(self) -> int:
        """Width of the tower."""
        return self._argument("embed_dim")

    @property
    def num_hidden_layers(self) -> int:
        """Number of blocks."""
        return self._argument("depth")

    @property
    def num_attention_heads(self) -> int:
        """Number of attention heads of a block."""
        return self._argument("num_heads")

    @property
    def intermediate_size(self) -> int:
        """Hidden width of a block's MLP."""
        return int(self.hidden_size * self._argument("mlp_ratio"))

    @property
    def use_class_token(self) -> bool:
        """Whether a learned token precedes the patches."""
        return self._argument("class_token")

    @property
    def layer_scale_init_value(self) -> float | None:
        """Initial factor of every residual branch, `None` where branches have no factors."""
        return self._argument("init_values")

    @property
    def num_pooler_heads(self) -> int:
        """Number of attention heads of the pooler."""
        return self._argument("attn_pool_num_heads")

    @property
    def projection_dim(self) -> int:
        """Width of a frame's embedding."""
        return self.num_labels


@strict
class PeVideoEncoderConfig(PreTrainedConfig):
    r"""Configuration of [`PeVideoEncoder`]: the frame tower and the temporal encoder over its embeddings.

    The defaults are those of transformers; the published models have four temporal layers. Field names and their
    meaning are those of transformers.

    Args:
        vision_config (`dict` or [`PeVideoVisionConfig`], *optional*):
            Configuration of the frame tower.
        hidden_size (`int`, *optional*, defaults to 1792):
            Width of the temporal encoder.
        intermediate_size (`int`, *optional*, defaults to 4800):
            Hidden width of a block's MLP.
        num_hidden_layers (`int`, *optional*, defaults to 6):
            Number of blocks.
        num_attention_heads (`int`, *optional*, defaults to 14):
            Number of attention heads of a block.
        num_key_value_heads (`int`, *optional*):
            Number of heads of keys and values, each of which serves several heads of queries; by default
            `num_attention_heads`.
        head_dim (`int`, *optional*, defaults to 128):
            Channels of a head.
        hidden_act (`str`, *optional*, defaults to `"silu"`):
            Activation of the MLPs' gates.
        max_position_embeddings (`int`, *optional*, defaults to 10000):
            Number of frames that training knew. The model takes longer videos.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the initial weights.
        rms_norm_eps (`float`, *optional*, defaults to 1e-5):
            Epsilon of the norms.
        rope_parameters (`dict`, *optional*):
            `rope_theta`, the base of the rotary frequencies over time, 20000 by default, and `rope_type`, which is
            `"default"`.
        attention_bias (`bool`, *optional*, defaults to `False`):
            Whether the projections of attention have biases.
        attention_dropout (`float`, *optional*, defaults to 0.0):
            Dropout of the attention probabilities.

    Raises:
        ValueError: heads of keys that don't divide those of queries, an odd `head_dim`, or another kind of rotary
            positions.

    Source: facebookresearch/perception_models at 3e352cca, `core/audio_visual_encoder/config.py`.
    """

    model_type = "pe_video_encoder"
    base_config_key = "audio_video_config"
    default_theta = 20000
    sub_configs_defaults = {"vision_config": PeVideoVisionConfig}

    vision_config: dict | PreTrainedConfig | None = None
    hidden_size: int = 1792
    intermediate_size: int = 4800
    num_hidden_layers: int = 6
    num_attention_heads: int = 14
    num_key_value_heads: int | None = None
    head_dim: int = 128
    hidden_act: str = "silu"
    max_position_embeddings: int = 10000
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-5
    rope_parameters: dict | None = None
    attention_bias: bool = False
    attention_dropout: float | int = 0.0

    def __post_init__(self, **kwargs):
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        super().__post_init__(**kwargs)

    def validate_architecture(self):
        if self.num_key_value_heads < 1 or self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"`num_attention_heads` ({self.num_attention_heads}) must be a multiple of `num_key_value_heads` "
                f"({self.num_key_value_heads})."
            )
        if self.head_dim % 2:
            raise ValueError(f"`head_dim` must be even, for pairs of channels turn together, got {self.head_dim}.")
        if self.rope_parameters["rope_type"] != "default":
            raise ValueError(f'`rope_type` must be "default", got {self.rope_parameters["rope_type"]!r}.')


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
    base_config_key = "audio_video_config"
    sub_configs_defaults = {
        "text_config": SubConfigSpec(
            config_class=AutoConfig,
            model_type="modernbert",
            init_kwargs={
                "hidden_size": 1024,
                "intermediate_size": 2624,
                "num_hidden_layers": 22,
                "num_attention_heads": 16,
            },
        ),
        "video_config": PeVideoEncoderConfig,
    }

    text_config: dict | PreTrainedConfig | None = None
    video_config: dict | PreTrainedConfig | None = None
    projection_dim: int | None = None
    normalize_text: bool = False

    def __post_init__(self, **kwargs):
        if isinstance(self.text_config, dict):
            self.text_config = {**self.sub_configs_defaults["text_config"].init_kwargs, **self.text_config}
        super().__post_init__(**kwargs)

    def validate_architecture(self):
        if self.text_config.model_type != "modernbert":
            raise ValueError(f"`text_config` must be of ModernBERT, got {self.text_config.model_type!r}.")


__all__ = ["PeVideoConfig", "PeVideoEncoderConfig", "PeVideoVisionConfig"]
