"""Configuration of VideoMAE, and what it makes of those of VideoMAE V2's remote code."""

import os
from collections.abc import Mapping
from typing import Any, Self

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .record import FAMILY


REMOTE_FIELDS = {
    "img_size": "image_size",
    "patch_size": "patch_size",
    "in_chans": "num_channels",
    "embed_dim": "hidden_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "qkv_bias": "qv_bias",
    "drop_rate": "hidden_dropout_prob",
    "attn_drop_rate": "attention_probs_dropout_prob",
    "drop_path_rate": "drop_path_rate",
    "layer_norm_eps": "layer_norm_eps",
    "init_values": "layer_scale_init_value",
    "use_learnable_pos_emb": "use_learnable_pos_emb",
    "tubelet_size": "tubelet_size",
    "num_frames": "num_frames",
    "use_mean_pooling": "use_mean_pooling",
    "cos_attn": "cos_attn",
}
"""Fields of `model_config` in the directories OpenGVLab/VideoMAEv2-*, and ours."""


@strict
class VideoMAEConfig(PreTrainedConfig):
    r"""Configuration of the VideoMAE encoder, its decoder for pre-training and its classifier.

    The defaults describe ViT-B at 16 frames of 224 × 224 pixels. Field names and their meaning are those of
    transformers; the fields that transformers does not have are marked with *ours* and default to the behavior of
    the original code.

    Args:
        num_frames (`int`, *optional*, defaults to 16):
            Number of frames that the position table was trained on.
        tubelet_size (`int`, *optional*, defaults to 2):
            Number of consecutive frames that one token covers.
        image_size (`int` or `list[int]`, *optional*, defaults to 224):
            Height and width of the frames that the position table was trained on, in pixels; one number for squares.
        patch_size (`int` or `list[int]`, *optional*, defaults to 16):
            Height and width of a patch, in pixels; one number for squares.
        num_channels (`int`, *optional*, defaults to 3):
            Number of color channels.
        hidden_size (`int`, *optional*, defaults to 768):
            Width of the encoder.
        intermediate_size (`int`, *optional*, defaults to 3072):
            Hidden width of an encoder MLP.
        num_hidden_layers (`int`, *optional*, defaults to 12):
            Number of encoder blocks.
        num_attention_heads (`int`, *optional*, defaults to 12):
            Number of attention heads of an encoder block.
        qv_bias (`bool`, *optional*, defaults to `True`):
            Whether queries and values have biases; keys have none. Also read as `qkv_bias`.
        cos_attn (`bool`, *optional*, defaults to `False`):
            *Ours.* Whether attention compares directions: queries and keys of length one, with a learned factor of
            each head in the place of 1/√d, at most 100. An option of VideoMAE V2 that no published checkpoint uses.
        hidden_act (`str`, *optional*, defaults to `"gelu"`):
            Activation of every MLP.
        layer_norm_eps (`float`, *optional*, defaults to 1e-6):
            Epsilon of the layer norms of all blocks and of the encoder's output. transformers defaults to 1e-12, which
            its directories say and which is kept for them; 1e-6 is the original's.
        use_learnable_pos_emb (`bool`, *optional*, defaults to `False`):
            *Ours.* Whether the encoder's position table is a stored parameter instead of sines and cosines. As in the
            original no gradient reaches it; `requires_grad_` on it changes that.
        use_input_positions (`bool`, *optional*, defaults to `False`):
            *Ours.* Whether the sines and cosines are those of the actual input's grid, as the original builds them
            for a model of that size. By default an input of another size than configured is refused unless a call
            asks for `interpolate_pos_encoding`.
        hidden_dropout_prob (`float`, *optional*, defaults to 0.0):
            Dropout after the attention and the MLP of every block.
        attention_probs_dropout_prob (`float`, *optional*, defaults to 0.0):
            Dropout of the attention probabilities.
        drop_path_rate (`float`, *optional*, defaults to 0.0):
            *Ours.* Stochastic depth: the rate rises linearly from 0 in the first block to this in the last one, in
            the encoder and in the decoder.
        layer_scale_init_value (`float`, *optional*, defaults to 0.0):
            *Ours.* Initial value of a learned factor of every channel after the attention and the MLP of every block,
            the original's `init_values`; 0 for blocks that have no such factors.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the truncated normals that initialize a classifier's weights and the mask token.
            Models for pre-training initialize their linear layers by fan in and fan out instead.
        use_mean_pooling (`bool`, *optional*, defaults to `True`):
            Whether the classifier reads the mean of all tokens, normalized after that, instead of the first token of
            the encoder's normalized output. With it [`VideoMAEModel`] does not normalize its output.
        use_pooler (`bool`, *optional*, defaults to `False`):
            *Ours.* Whether [`VideoMAEModel`] also returns one vector for each video, `pooler_output`: what a
            classifier would read, by `use_mean_pooling` with a norm of its own. The encoders of VideoMAE V2 that are
            published by themselves have it.
        head_layer_norm_eps (`float`, *optional*, defaults to 1e-6):
            *Ours.* Epsilon of the two norms before a head, `fc_norm` of the classifier and `decoder.norm`.
            transformers computes both with 1e-5.
        use_pretraining_norm (`bool`, *optional*, defaults to `True`):
            *Ours.* Whether [`VideoMAEForPreTraining`] normalizes the encoder's output whatever `use_mean_pooling`
            says, as the original does. `False` is for directories that transformers pre-trained with
            `use_mean_pooling`, for which it leaves this norm out.
        norm_pix_loss (`bool`, *optional*, defaults to `True`):
            Whether the targets of pre-training are normalized within each tubelet, channel by channel.
        decoder_hidden_size (`int`, *optional*, defaults to 384):
            Width of the decoder.
        decoder_intermediate_size (`int`, *optional*, defaults to 1536):
            Hidden width of a decoder MLP.
        decoder_num_hidden_layers (`int`, *optional*, defaults to 4):
            Number of decoder blocks.
        decoder_num_attention_heads (`int`, *optional*, defaults to 6):
            Number of attention heads of a decoder block.

    Raises:
        ValueError: a width that its number of heads does not divide or that is odd, a size below one or larger than
            what it must fit into, a pair of sizes that has not two entries, or two choices that exclude each other.

    Source: MCG-NJU/VideoMAE at 14ef8d85, `modeling_pretrain.py` and `modeling_finetune.py`.
    """

    model_type = "videomae"
    keys_to_ignore_at_inference = ["hidden_states", "attentions", "decoder_hidden_states", "decoder_attentions"]

    num_frames: int = 16
    tubelet_size: int = 2
    image_size: int | list[int] | tuple[int, int] = 224
    patch_size: int | list[int] | tuple[int, int] = 16
    num_channels: int = 3

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    qv_bias: bool = True
    cos_attn: bool = False
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6

    use_learnable_pos_emb: bool = False
    use_input_positions: bool = False

    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    drop_path_rate: float | int = 0.0
    layer_scale_init_value: float | int = 0.0
    initializer_range: float = 0.02

    use_mean_pooling: bool = True
    use_pooler: bool = False
    head_layer_norm_eps: float = 1e-6

    use_pretraining_norm: bool = True
    norm_pix_loss: bool = True
    decoder_hidden_size: int = 384
    decoder_intermediate_size: int = 1536
    decoder_num_hidden_layers: int = 4
    decoder_num_attention_heads: int = 6

    def __post_init__(self, **kwargs):
        self.qv_bias = kwargs.pop("qkv_bias", self.qv_bias)
        super().__post_init__(**kwargs)

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read a directory's settings, also those of VideoMAE V2's remote code.

        Args:
            pretrained_model_name_or_path: a directory, or the name of a repository.
            **kwargs: where and how to look for it, such as `revision` and `subfolder`.

        Returns:
            The settings by name, and the arguments that don't say how to look for them.
        """
        settings, unused = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        return _in_own_words(settings), unused

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs) -> Self:
        """Make a configuration of settings, also of those of VideoMAE V2's remote code.

        Args:
            config_dict: the settings by name.
            **kwargs: fields that override them.

        Returns:
            The configuration.
        """
        return super().from_dict(_in_own_words(config_dict), **kwargs)

    @property
    def image_height_width(self) -> tuple[int, int]:
        """`image_size` as height and width, in pixels."""
        return _height_width(self.image_size)

    @property
    def patch_height_width(self) -> tuple[int, int]:
        """`patch_size` as height and width, in pixels."""
        return _height_width(self.patch_size)

    @property
    def token_grid(self) -> tuple[int, int, int]:
        """Number of tokens along time, height and width of an input of the configured size."""
        (height, width), (patch_height, patch_width) = self.image_height_width, self.patch_height_width
        return self.num_frames // self.tubelet_size, height // patch_height, width // patch_width

    def validate_architecture(self) -> None:
        for name in ("image_size", "patch_size"):
            size = getattr(self, name)
            if not isinstance(size, int) and len(size) != 2:
                raise ValueError(f"`{name}` must be one number, or height and width; got {size}.")
        smallest = {name: getattr(self, name) for name in ("num_channels", "tubelet_size", "num_hidden_layers")}
        for name, value in {**smallest, "patch_size": min(self.patch_height_width)}.items():
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if min(self.token_grid) < 1:
            raise ValueError(
                f"No token fits into `num_frames` ({self.num_frames}) of `image_size` ({self.image_size}): they must "
                f"be at least `tubelet_size` ({self.tubelet_size}) and `patch_size` ({self.patch_size})."
            )
        for prefix in ("", "decoder_"):
            width, heads = getattr(self, f"{prefix}hidden_size"), getattr(self, f"{prefix}num_attention_heads")
            if heads < 1 or width % heads:
                raise ValueError(
                    f"`{prefix}hidden_size` ({width}) must be a multiple of `{prefix}num_attention_heads` ({heads})."
                )
        if self.use_learnable_pos_emb and self.use_input_positions:
            raise ValueError(
                "`use_input_positions` computes sines and cosines on the input's grid, but `use_learnable_pos_emb` "
                "says that the model has learned positions instead; switch one of the two off."
            )


def remote_fields(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Our fields from the `model_config` of VideoMAE V2's remote code.

    `use_mean_pooling` is what it says, which the weights may contradict.

    Raises:
        ValueError: another factor of the scores than 1/√d, of which the code has an option.
    """
    if settings.get("qk_scale"):
        raise ValueError(f"Scores are scaled by 1/√d here, but `qk_scale` is {settings['qk_scale']}.")
    fields = {ours: settings[theirs] for theirs, ours in REMOTE_FIELDS.items() if settings.get(theirs) is not None}
    if {"embed_dim", "mlp_ratio"} <= settings.keys():
        fields["intermediate_size"] = int(settings["embed_dim"] * settings["mlp_ratio"])
    if "layer_norm_eps" in fields:
        fields["head_layer_norm_eps"] = fields["layer_norm_eps"]
    return fields


def is_of_remote_code(settings: Mapping[str, Any]) -> bool:
    """Whether a directory's settings are those of VideoMAE V2's remote code."""
    return str(settings.get("model_type")).startswith(FAMILY.remote_code)


def _in_own_words(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as a directory of ours has them; ours are left as they are."""
    if not is_of_remote_code(settings):
        return settings
    fields = remote_fields(settings.get("model_config") or {})
    return {"model_type": FAMILY.model_type, "architectures": ["VideoMAEModel"], "use_pooler": True, **fields}


def _height_width(size: int | list[int] | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


__all__ = ["VideoMAEConfig"]
