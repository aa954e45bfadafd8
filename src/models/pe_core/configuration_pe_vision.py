"""Configuration of the Perception Encoder's vision tower: PE core, PE lang and PE spatial."""

from math import inf, nextafter
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .presets import PE_ARCHITECTURES


TIMM_ARGUMENTS = {
    "embed_dim": "hidden_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "patch_size": "patch_size",
    "img_size": "image_size",
    "in_chans": "num_channels",
    "class_token": "use_cls_token",
    "use_post_transformer_norm": "use_post_norm",
    "attn_pool_num_heads": "pooler_num_attention_heads",
    "num_classes": "projection_dim",
}
"""Arguments of timm's models that are a field of ours under another name."""

POOLER_MLP_RATIO = 4.0
"""Width of the pooler's MLP over that of the tower, in every architecture."""

OF_EVERY_TOWER = {"num_channels": 3, "pooler_num_attention_heads": 8}


@strict
class PeVisionConfig(PreTrainedConfig):
    r"""Configuration of [`PeVisionModel`], the vision tower of the Perception Encoder.

    Sizes that are not given are those of `architecture`. The configuration of the tower in published PE-AV
    repositories (`model_type` "timm_wrapper") is read as well: `architecture`, `model_args`, and `num_labels` or
    `num_classes`, which are other names of `projection_dim`. In `model_args` sizes that are not given are timm's: the
    MLP keeps its ratio to `embed_dim`.

    Args:
        architecture (`str`, *optional*, defaults to `"vit_pe_core_large_patch14_336"`):
            timm's name of a tower, from whose sizes this one starts.
        image_size (`int` or `list[int]`, *optional*):
            Height and width of the training images, in pixels: one number or `[height, width]`; with `patch_size` the
            shape of the table of positions. The model takes any size.
        patch_size (`int`, *optional*):
            Height and width of a patch, in pixels.
        num_channels (`int`, *optional*):
            Number of color channels, 3 in every architecture.
        hidden_size (`int`, *optional*):
            Width of the tower.
        num_hidden_layers (`int`, *optional*):
            Number of blocks.
        num_attention_heads (`int`, *optional*):
            Number of attention heads of a block.
        intermediate_size (`int`, *optional*):
            Hidden width of a block's MLP.
        hidden_act (`str`, *optional*, defaults to `"gelu"`):
            Activation of every MLP.
        layer_norm_eps (`float`, *optional*, defaults to 1e-5):
            Epsilon of the layer norms.
        use_cls_token (`bool`, *optional*):
            Whether a learned token stands before the patches.
        use_post_norm (`bool`, *optional*):
            Whether the output of the last block is normalized.
        use_attention_pooling (`bool`, *optional*):
            Whether the tower pools its tokens into one vector an image, by the attention of a learned query.
        pooler_num_attention_heads (`int`, *optional*):
            Number of attention heads of the pooler, 8 in every architecture.
        projection_dim (`int`, *optional*):
            Width of the image embeddings, to which a linear layer projects the pooled vector; 0 for none. Without
            `use_attention_pooling` the vector is the mean of the patches, as in timm's towers with `num_classes`.
        layer_scale_init_value (`float`, *optional*):
            What the learned factors of residual branches start with; 0 for a tower without such factors.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the normal that initializes the weights.

    Raises:
        ValueError: an unknown architecture, `model_args` that this tower cannot have, a width that its heads don't
            divide into multiples of four channels, or no patch in an image.

    Source: facebookresearch/perception_models at 3e352cca, `core/vision_encoder/config.py`.
    """

    model_type = "pe_vision_model"
    other_model_types = ("timm_wrapper",)
    base_config_key = "vision_config"
    attribute_map = {"num_labels": "projection_dim", "num_classes": "projection_dim"}

    architecture: str = "vit_pe_core_large_patch14_336"
    image_size: int | list[int] | tuple[int, ...] | None = None
    patch_size: int | None = None
    num_channels: int | None = None

    hidden_size: int | None = None
    num_hidden_layers: int | None = None
    num_attention_heads: int | None = None
    intermediate_size: int | None = None
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5

    use_cls_token: bool | None = None
    use_post_norm: bool | None = None
    use_attention_pooling: bool | None = None
    pooler_num_attention_heads: int | None = None
    projection_dim: int | None = None
    layer_scale_init_value: float | int | None = None
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        if self.architecture not in PE_ARCHITECTURES:
            raise ValueError(
                f"`architecture` must be one of {', '.join(PE_ARCHITECTURES)}, got {self.architecture!r}."
            )
        for name in ("model_type", "label_names", "pretrained_cfg", "num_features", "do_pooling"):
            kwargs.pop(name, None)
        table = {**OF_EVERY_TOWER, **PE_ARCHITECTURES[self.architecture]}
        arguments = {"global_pool": kwargs.pop("global_pool", None), **(kwargs.pop("model_args", None) or {})}
        for name in ("num_labels", "num_classes"):
            number = kwargs.pop(name, None)
            arguments["num_classes"] = number if number is not None else arguments.get("num_classes")
        for name, value in {**table, **_from_timm(arguments, table)}.items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        self.image_size = _side_or_sides(self.image_size)
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        if self.num_attention_heads < 1 or self.hidden_size % (4 * self.num_attention_heads):
            raise ValueError(
                f"`hidden_size` ({self.hidden_size}) must be a multiple of four times `num_attention_heads` "
                f"({self.num_attention_heads}): rotary positions turn pairs of channels along two axes."
            )
        if self.use_attention_pooling and self.hidden_size % self.pooler_num_attention_heads:
            raise ValueError(
                f"`hidden_size` ({self.hidden_size}) must be a multiple of `pooler_num_attention_heads` "
                f"({self.pooler_num_attention_heads})."
            )
        if self.patch_size < 1 or 0 in self.position_grid:
            raise ValueError(f"No patch of {self.patch_size} pixels fits into images of {self.image_size} pixels.")

    @property
    def position_grid(self) -> tuple[int, int]:
        """Rows and columns of the table of positions."""
        return _grid(self.image_size, self.patch_size)

    def to_dict(self) -> dict[str, Any]:
        """As the base class, with what transformers' class for towers of timm reads."""
        output = super().to_dict()
        fields = {name: getattr(self, name) for name in (*OF_EVERY_TOWER, *PE_ARCHITECTURES[self.architecture])}
        arguments = _to_timm(fields, {**OF_EVERY_TOWER, **PE_ARCHITECTURES[self.architecture]})
        if arguments:
            output["model_args"] = arguments
        return {**output, "num_labels": self.projection_dim}


def _side_or_sides(size: Any) -> int | list[int]:
    """An `image_size` as it is kept: one number for a square, else height and width."""
    if isinstance(size, int):
        return size
    if len(size) != 2:
        raise ValueError(f"`image_size` must be a number of pixels or [height, width], got {size!r}.")
    height, width = size
    return height if height == width else [height, width]


def _grid(image_size: int | list[int], patch_size: int) -> tuple[int, int]:
    """Rows and columns of patches."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    return height // patch_size, width // patch_size


def _from_timm(arguments: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    """Fields of ours from arguments of timm's models; `table` has the fields that are not given."""
    arguments = {name: value for name, value in arguments.items() if value is not None}
    fields = {ours: arguments.pop(theirs) for theirs, ours in TIMM_ARGUMENTS.items() if theirs in arguments}
    width = fields.get("hidden_size", table["hidden_size"])
    ratio = arguments.pop("mlp_ratio", table["intermediate_size"] / table["hidden_size"])
    fields["intermediate_size"] = int(width * ratio)
    if "init_values" in arguments:
        fields["layer_scale_init_value"] = arguments.pop("init_values")
    fields |= _pooling_from_timm(arguments, table)
    image_size = _side_or_sides(fields.get("image_size", table["image_size"]))
    grid = _grid(image_size, fields.get("patch_size", table["patch_size"]))
    reference = arguments.pop("ref_feat_shape", grid)
    if ((reference, reference) if isinstance(reference, int) else tuple(reference)) != grid:
        raise ValueError(f"`ref_feat_shape` must be {grid}, the grid of `img_size`: positions are never rescaled.")
    arguments.pop("dynamic_img_size", None)
    unknown = [name for name, value in arguments.items() if value]
    if unknown:
        known = [*TIMM_ARGUMENTS, "mlp_ratio", "init_values", "global_pool"]
        raise ValueError(
            f"`model_args` has {', '.join(unknown)}, which this model lacks; it knows {', '.join(known)}."
        )
    return fields


def _pooling_from_timm(arguments: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    """The fields of pooling, whose arguments are taken out of timm's."""
    pooling, norm_after = arguments.pop("global_pool", None), arguments.pop("use_fc_norm", None)
    if pooling is None:
        return {}
    if pooling not in ("map", "avg", ""):
        raise ValueError(
            f'`global_pool` must be "map", "avg" or "", got {pooling!r}: this model pools in no other way.'
        )
    norm_after = (pooling == "avg" and table["use_post_norm"]) if norm_after is None else norm_after
    if norm_after:
        raise ValueError(
            'With `global_pool` "avg" timm normalizes the mean instead of the tokens, which this model does not. Add '
            "`use_fc_norm` False to `model_args` for the mean of normalized tokens."
        )
    if arguments.get("attn_pool_mlp_ratio") == POOLER_MLP_RATIO:
        arguments.pop("attn_pool_mlp_ratio")
    return {"use_attention_pooling": pooling == "map"}


def _pooling_to_timm(fields: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `_pooling_from_timm`."""
    if fields["use_attention_pooling"] == table["use_attention_pooling"]:
        return {}
    if fields["use_attention_pooling"]:
        heads = fields["pooler_num_attention_heads"]
        return {"global_pool": "map", "attn_pool_num_heads": heads, "attn_pool_mlp_ratio": POOLER_MLP_RATIO}
    return {"global_pool": "avg", "use_fc_norm": False} if fields["projection_dim"] else {"global_pool": ""}


def _to_timm(fields: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    """Arguments with which timm builds the tower of `fields` where it has the one of `table` under its name."""
    names = {ours: theirs for theirs, ours in TIMM_ARGUMENTS.items() if theirs != "num_classes"}
    arguments = {theirs: fields[ours] for ours, theirs in names.items() if fields[ours] != table[ours]}
    width, mlp_width = fields["hidden_size"], fields["intermediate_size"]
    if (width, mlp_width) != (table["hidden_size"], table["intermediate_size"]):
        ratio = mlp_width / width
        arguments["mlp_ratio"] = ratio if int(width * ratio) == mlp_width else nextafter(ratio, inf)
    if fields["layer_scale_init_value"] != table["layer_scale_init_value"]:
        arguments["init_values"] = fields["layer_scale_init_value"] or None
    arguments |= _pooling_to_timm(fields, table)
    grids = [_grid(each["image_size"], each["patch_size"]) for each in (fields, table)]
    if grids[0] != grids[1]:
        arguments["ref_feat_shape"] = list(grids[0])
    return arguments


__all__ = ["PeVisionConfig"]
