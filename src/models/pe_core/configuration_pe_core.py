"""Configurations of PE core's image-text and video-text model: its text tower, and both towers together."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from ..configuration import build_towers
from .configuration_pe_vision import PeVisionConfig


@strict
class PeCoreTextConfig(PreTrainedConfig):
    r"""Configuration of [`PeCoreTextModel`], PE core's text tower.

    The defaults are those of the base and large models.

    Args:
        vocab_size (`int`, *optional*, defaults to 49408):
            Number of tokens.
        max_position_embeddings (`int`, *optional*, defaults to 32):
            Number of tokens of the longest text.
        hidden_size (`int`, *optional*, defaults to 1024):
            Width of the tower.
        num_hidden_layers (`int`, *optional*, defaults to 24):
            Number of blocks.
        num_attention_heads (`int`, *optional*, defaults to 16):
            Number of attention heads of a block.
        intermediate_size (`int`, *optional*, defaults to 4096):
            Hidden width of a block's MLP.
        hidden_act (`str`, *optional*, defaults to `"gelu"`):
            Activation of the MLPs.
        layer_norm_eps (`float`, *optional*, defaults to 1e-5):
            Epsilon of the layer norms.
        projection_dim (`int`, *optional*, defaults to 1024):
            Width of the text embeddings.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the normal that initializes the weights.

    Raises:
        ValueError: a width that its heads don't divide.

    Source: facebookresearch/perception_models at 3e352cca, `core/vision_encoder/config.py`.
    """

    model_type = "pe_core_text_model"
    base_config_key = "text_config"

    vocab_size: int = 49408
    max_position_embeddings: int = 32

    num_hidden_layers: int = 24
    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_attention_heads: int = 16
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5
    projection_dim: int = 1024
    initializer_range: float = 0.02

    def validate_architecture(self) -> None:
        if self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"`hidden_size` ({self.hidden_size}) must be a multiple of `num_attention_heads` "
                f"({self.num_attention_heads})."
            )


@strict
class PeCoreConfig(PreTrainedConfig):
    r"""Configuration of [`PeCoreModel`]: a vision tower and a text tower whose embeddings are compared.

    Args:
        text_config (`dict` or [`PeCoreTextConfig`], *optional*):
            Configuration of the text tower; its defaults where left out.
        vision_config (`dict` or [`PeVisionConfig`], *optional*):
            Configuration of the vision tower; its defaults where left out.
        logit_scale_init_value (`float`, *optional*, defaults to 2.6592600369327779):
            Logarithm of the factor that similarities start with: 1 / 0.07.

    Raises:
        ValueError: embeddings of different widths, or none of images.
    """

    model_type = "pe_core"
    sub_configs = {"vision_config": PeVisionConfig, "text_config": PeCoreTextConfig}

    text_config: dict | PreTrainedConfig | None = None
    vision_config: dict | PreTrainedConfig | None = None
    logit_scale_init_value: float | int = 2.6592600369327779

    def __post_init__(self, **kwargs):
        build_towers(self)
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        widths = self.vision_config.projection_dim, self.text_config.projection_dim
        if widths[0] != widths[1] or not widths[0]:
            raise ValueError(
                "Embeddings of images and texts are compared, so that both towers need one `projection_dim`, above 0; "
                f"got {widths[0]} and {widths[1]}."
            )


__all__ = ["PeCoreConfig", "PeCoreTextConfig"]
