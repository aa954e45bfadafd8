"""Configurations of VideoPrism: its video towers, its text tower, and the two together."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from ..configuration import build_towers


def check_heads(config: PreTrainedConfig) -> None:
    """A ValueError for a width that its heads don't divide, and for a negative cap."""
    if config.num_attention_heads < 1 or config.hidden_size % config.num_attention_heads:
        raise ValueError(
            f"`hidden_size` ({config.hidden_size}) must be a multiple of `num_attention_heads` "
            f"({config.num_attention_heads})."
        )
    if config.attn_logit_softcapping < 0:
        raise ValueError(
            f"`attn_logit_softcapping` must be positive, or 0 for no cap, got {config.attn_logit_softcapping}."
        )


@strict
class VideoPrismVisionConfig(PreTrainedConfig):
    r"""Configuration of the VideoPrism video encoder and of what stands on it: pooler, auxiliary layers, classifier.

    The defaults describe the base size. Field names and their meaning are those of transformers; the fields that
    transformers does not have are marked with *ours* and default to its behavior.

    Args:
        image_size (`int` or two of them, *optional*, defaults to 288):
            Height and width of the training frames, in pixels; with `tubelet_size` the shape of the table of spatial
            positions.
        num_frames (`int`, *optional*, defaults to 16):
            Number of training frames, and length of the table of temporal positions.
        tubelet_size (three `int`s, *optional*, defaults to `(1, 18, 18)`):
            Frames, height and width that a token covers. Tokens cover one frame, and patches are square.
        num_channels (`int`, *optional*, defaults to 3):
            Number of color channels.
        hidden_size (`int`, *optional*, defaults to 768):
            Width of the encoder.
        num_attention_heads (`int`, *optional*, defaults to 12):
            Number of attention heads of a block.
        intermediate_size (`int`, *optional*, defaults to 3072):
            Hidden width of a block's MLP.
        hidden_act (`str`, *optional*, defaults to `"gelu_python"`):
            Activation of every MLP: the exact GELU, which the names `"gelu_python"` and `"gelu"` both mean.
        hidden_dropout_prob (`float`, *optional*, defaults to 0.0):
            Dropout of embeddings and of the output of attention and MLP.
        attention_probs_dropout_prob (`float`, *optional*, defaults to 0.0):
            Dropout of the attention probabilities.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Not read, here or in transformers: weights start as LeCun normals, as in the original.
        layer_norm_eps (`float`, *optional*, defaults to 1e-6):
            Epsilon of the layer norms.
        qkv_bias (`bool`, *optional*, defaults to `True`):
            Whether queries, keys and values have biases.
        num_spatial_layers (`int`, *optional*, defaults to 12):
            Number of blocks over the tokens of a frame.
        num_temporal_layers (`int`, *optional*, defaults to 4):
            Number of blocks over the tokens of a place through time.
        attn_logit_softcapping (`float`, *optional*, defaults to 50.0):
            Bound of the attention scores: cap·tanh(score / cap). 0 is no bound. Poolers have none.
        num_auxiliary_layers (`int`, *optional*, defaults to 2):
            Number of blocks over all tokens in [`VideoPrismVideoModel`].
        apply_l2norm (`bool`, *optional*, defaults to `True`):
            Whether the embeddings of [`VideoPrismVideoModel`] have length one.
        pooler_head_dim (`int`, *optional*):
            *Ours.* Channels of a pooler's head. By default `intermediate_size // num_attention_heads`, which only
            fits video-text models whose MLPs are four times as wide as the encoder. The original has
            `4 * hidden_size // num_attention_heads` in video-text models and `hidden_size // num_attention_heads` in
            classifiers.
        num_pooling_queries (`int`, *optional*, defaults to 1):
            *Ours.* Number of learned queries of the pooler in [`VideoPrismVideoModel`].

    Raises:
        ValueError: a tubelet that isn't one frame of a square patch, a frame of neither one nor two sizes or without
            a patch, a width that its heads don't divide, or a negative cap.

    Source: google-deepmind/videoprism at d481d91b, `videoprism/models.py`.
    """

    model_type = "videoprism_vision_model"
    base_config_key = "vision_config"
    # A Trainer gathers everything else that an output has, for all videos that it evaluates.
    keys_to_ignore_at_inference = [
        *("hidden_states", "attentions", "pooler_output", "spatiotemporal_features", "spatial_features"),
        *("spatial_hidden_states", "spatial_attentions", "temporal_hidden_states", "temporal_attentions"),
    ]

    num_frames: int = 16
    num_channels: int = 3
    image_size: int | list[int] | tuple[int, int] = 288
    tubelet_size: list[int] | tuple[int, ...] = (1, 18, 18)

    num_spatial_layers: int = 12
    num_temporal_layers: int = 4
    num_auxiliary_layers: int = 2
    hidden_size: int = 768
    intermediate_size: int = 3072
    hidden_act: str = "gelu_python"
    num_attention_heads: int = 12
    qkv_bias: bool = True
    attn_logit_softcapping: float | int = 50.0

    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    attention_probs_dropout_prob: float | int = 0.0
    hidden_dropout_prob: float | int = 0.0

    apply_l2norm: bool = True
    pooler_head_dim: int | None = None
    num_pooling_queries: int = 1

    def validate_architecture(self) -> None:
        check_heads(self)
        if not isinstance(self.image_size, int) and len(self.image_size) != 2:
            raise ValueError(f"`image_size` must be one number or height and width, got {self.image_size}.")
        if len(self.tubelet_size) != 3 or self.tubelet_size[0] != 1 or self.tubelet_size[1] != self.tubelet_size[2]:
            raise ValueError(
                f"`tubelet_size` must be one frame of a square patch, (1, p, p), got {tuple(self.tubelet_size)}."
            )
        if self.num_frames < 1 or min(self.position_grid) < 1:
            raise ValueError(
                f"`num_frames` ({self.num_frames}) and `image_size` ({self.image_size}) must hold at least one frame "
                f"and one patch of {self.tubelet_size[1]} pixels."
            )

    @property
    def position_grid(self) -> tuple[int, int]:
        """Rows and columns of the table of spatial positions."""
        size = (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size
        return size[0] // self.tubelet_size[1], size[1] // self.tubelet_size[2]


@strict
class VideoPrismTextConfig(PreTrainedConfig):
    r"""Configuration of the VideoPrism text encoder.

    The defaults describe the base size. Field names and their meaning are those of transformers; the fields that
    transformers does not have are marked with *ours* and default to the behavior of the original.

    Args:
        vocab_size (`int`, *optional*, defaults to 32000):
            Number of tokens.
        hidden_size (`int`, *optional*, defaults to 768):
            Width of the encoder.
        intermediate_size (`int`, *optional*, defaults to 3072):
            Hidden width of a block's MLP: `4 * hidden_size` in the original.
        num_hidden_layers (`int`, *optional*, defaults to 12):
            Number of blocks.
        num_attention_heads (`int`, *optional*, defaults to 12):
            Number of attention heads of a block.
        max_position_embeddings (`int`, *optional*, defaults to 64):
            Number of tokens of a training text. The model takes longer ones.
        hidden_act (`str`, *optional*, defaults to `"relu"`):
            Activation of the MLPs.
        layer_norm_eps (`float`, *optional*, defaults to 1e-6):
            Epsilon of the layer norms.
        pad_token_id (`int`, *optional*, defaults to 0):
            Number of the token that fills short texts up.
        bos_token_id (`int`, *optional*):
            Number of the token that begins a text, where there is one.
        eos_token_id (`int` or a list of them, *optional*):
            Number of the token that ends a text; VideoPrism has none.
        attention_probs_dropout_prob (`float`, *optional*, defaults to 0.0):
            Dropout of the attention probabilities.
        apply_l2norm (`bool`, *optional*, defaults to `True`):
            Whether text embeddings have length one.
        qkv_bias (`bool`, *optional*, defaults to `True`):
            Whether queries, keys and values have biases.
        hidden_dropout_prob (`float`, *optional*, defaults to 0.0):
            Dropout of the output of attention and MLP.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Not read, here or in transformers: weights start as LeCun normals, as in the original.
        attn_logit_softcapping (`float`, *optional*, defaults to 50.0):
            Bound of the attention scores: cap·tanh(score / cap). 0 is no bound.
        enable_causal_attention (`bool`, *optional*, defaults to `True`):
            *Ours.* Whether a token attends to itself and those before it alone.
        norm_policy (`str`, *optional*, defaults to `"pre"`):
            *Ours.* `"pre"` normalizes the input of attention and MLP, `"primer_hybrid"` their output as well.

    Raises:
        ValueError: another norm policy, a width that its heads don't divide, or a negative cap.

    Source: google-deepmind/videoprism at d481d91b, `videoprism/encoders.py`, `TextEncoder`.
    """

    model_type = "videoprism_text_model"
    base_config_key = "text_config"

    vocab_size: int = 32000
    max_position_embeddings: int = 64
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    num_hidden_layers: int = 12
    hidden_size: int = 768
    intermediate_size: int = 3072
    hidden_act: str = "relu"
    num_attention_heads: int = 12
    qkv_bias: bool = True
    attn_logit_softcapping: float | int = 50.0
    enable_causal_attention: bool = True
    norm_policy: str = "pre"

    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    attention_probs_dropout_prob: float | int = 0.0
    hidden_dropout_prob: float | int = 0.0

    apply_l2norm: bool = True

    def validate_architecture(self) -> None:
        check_heads(self)
        if self.norm_policy not in ("pre", "primer_hybrid"):
            raise ValueError(f'`norm_policy` must be "pre" or "primer_hybrid", got {self.norm_policy!r}.')


@strict
class VideoPrismConfig(PreTrainedConfig):
    r"""Configuration of [`VideoPrismClipModel`]: a video tower and a text tower.

    Args:
        text_config (`dict` or [`VideoPrismTextConfig`], *optional*):
            Configuration of the text tower; its defaults where left out.
        vision_config (`dict` or [`VideoPrismVisionConfig`], *optional*):
            Configuration of the video tower; its defaults where left out.
        logit_scale_init_value (`float`, *optional*):
            *Ours.* Logarithm of the factor that a learned temperature starts with. By default the model learns none,
            and its checkpoints have none.

    Raises:
        ValueError: towers of different widths, whose embeddings cannot be compared.
    """

    model_type = "videoprism"
    sub_configs = {"vision_config": VideoPrismVisionConfig, "text_config": VideoPrismTextConfig}

    text_config: dict | PreTrainedConfig | None = None
    vision_config: dict | PreTrainedConfig | None = None
    logit_scale_init_value: float | int | None = None

    def __post_init__(self, **kwargs):
        build_towers(self)
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        widths = self.vision_config.hidden_size, self.text_config.hidden_size
        if widths[0] != widths[1]:
            raise ValueError(
                f"Video and text embeddings are compared, so that both towers need one `hidden_size`; got {widths[0]} "
                f"and {widths[1]}."
            )


__all__ = ["VideoPrismConfig", "VideoPrismTextConfig", "VideoPrismVisionConfig"]
