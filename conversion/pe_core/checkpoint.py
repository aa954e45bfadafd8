"""PE core, PE lang and PE spatial: files of facebookresearch/perception_models (commit 3e352cca).

A file is a flat state dict, alone or under `state_dict` or `weights`. That of a video-text model has the vision tower
under "visual." and the text tower beside it; that of a vision tower alone usually has no such beginning. The vision
tower's names are those of timm's port, which transformers takes; timm splits the pooler's projection into queries and
the rest, turns the last projection around and gives it a bias, which is zero.
"""

from dataclasses import dataclass, replace
from math import isqrt
from typing import Any

import torch

from vidformers.conversion.core import (
    Axis,
    ConversionError,
    Count,
    FamilyMap,
    Layout,
    Op,
    Part,
    Present,
    Reader,
    Reshape,
    Rule,
    Shapes,
    Tensors,
    Transpose,
    linear,
    rule,
)


ENTRIES = ("", "state_dict", "weights")


# -------------------------------------------------------------------------------------------- operations and readers


@dataclass(frozen=True)
class QueriesAndRest(Op):
    """A fused projection of queries, keys and values, cut into the queries' third and the rest."""

    def forward(self, tensors: Tensors) -> Tensors:
        (fused,) = tensors
        return list(fused.split([fused.shape[0] // 3, fused.shape[0] // 3 * 2]))

    def inverse(self, tensors: Tensors) -> Tensors:
        return [torch.cat(tensors)]


@dataclass(frozen=True)
class TransposeAndZeroBias(Op):
    """A matrix that multiplies from the right, as the weight of a layer whose bias is zero."""

    def forward(self, tensors: Tensors) -> Tensors:
        (matrix,) = tensors
        return [matrix.T, matrix.new_zeros(matrix.shape[1])]

    def inverse(self, tensors: Tensors) -> Tensors:
        weight, bias = tensors
        if not bias.is_meta and bias.count_nonzero():
            raise ConversionError(
                "the projection's bias is not zero: the original has none, and cannot hold this model."
            )
        return [weight.T]


@dataclass(frozen=True)
class ImageSize(Reader):
    """`image_size`, from the length of the table of positions, of which the class token has one."""

    tensor: str = "positional_embedding"

    def read(self, shapes: Shapes) -> int:
        patches = shapes[self.tensor][0] - ("class_embedding" in shapes)
        return isqrt(patches) * shapes["conv1.weight"][2]

    def agrees(self, given: int, shapes: Shapes) -> bool:
        patch_size = shapes["conv1.weight"][2]
        return given // patch_size == self.read(shapes) // patch_size


@dataclass(frozen=True)
class LayerScale(Reader):
    """`layer_scale_init_value`: 0.1, as in the original's configurations, where the blocks have factors, or 0."""

    tensor: str = "transformer.resblocks.0.ls_1.gamma"

    def read(self, shapes: Shapes) -> float:
        return 0.1 if self.tensor in shapes else 0.0

    def agrees(self, given: float, shapes: Shapes) -> bool:
        return bool(given) == (self.tensor in shapes)


# ------------------------------------------------------------------------------------------------------------- rules

FIRST_BLOCK = "transformer.resblocks.0"


def _blocks() -> tuple[Rule, ...]:
    """The rules of the blocks, alike in both towers."""
    ours, theirs = "blocks.{i}", "transformer.resblocks.{i}"
    names = {
        "norm1": "ln_1",
        "attn.proj": "attn.out_proj",
        "norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    return (
        *(
            rule(f"{ours}.attn.qkv.{leaf}", f"{theirs}.attn.in_proj_{leaf}", repeat="num_hidden_layers")
            for leaf in ("weight", "bias")
        ),
        *(
            entry
            for target, source in names.items()
            for entry in linear(f"{ours}.{target}", f"{theirs}.{source}", repeat="num_hidden_layers")
        ),
    )


def _block_fields() -> dict[str, Reader]:
    return {
        "num_hidden_layers": Count("transformer.resblocks.{i}.ln_1.weight"),
        "intermediate_size": Axis(f"{FIRST_BLOCK}.mlp.c_fc.bias", 0),
    }


def _table(target: str, source: str, **options: Any) -> Rule:
    """Positions (N, D), with an axis before them in our model."""
    return rule(target, source, Reshape((-1, "hidden_size"), (1, -1, "hidden_size")), **options)


POOLER = "use_attention_pooling"
VISION = Part(
    entries=ENTRIES,
    any_entry=True,
    rules=(
        rule("patch_embed.proj.weight", "conv1.weight"),
        rule("cls_token", "class_embedding", Reshape(("hidden_size",), (1, 1, "hidden_size")), when="use_cls_token"),
        _table("pos_embed", "positional_embedding"),
        *linear("norm_pre", "ln_pre"),
        *_blocks(),
        *(
            rule(
                f"blocks.{{i}}.gamma_{index}",
                f"transformer.resblocks.{{i}}.ls_{index}.gamma",
                repeat="num_hidden_layers",
                when="layer_scale_init_value",
            )
            for index in (1, 2)
        ),
        *linear("norm", "ln_post", when="use_post_norm"),
        rule("attn_pool.latent", "attn_pool.probe", when=POOLER),
        *(
            rule(
                (f"attn_pool.q.{leaf}", f"attn_pool.kv.{leaf}"),
                f"attn_pool.attn.in_proj_{leaf}",
                QueriesAndRest(),
                when=POOLER,
            )
            for leaf in ("weight", "bias")
        ),
        *linear("attn_pool.proj", "attn_pool.attn.out_proj", when=POOLER),
        *linear("attn_pool.norm", "attn_pool.layernorm", when=POOLER),
        *linear("attn_pool.mlp.fc1", "attn_pool.mlp.c_fc", when=POOLER),
        *linear("attn_pool.mlp.fc2", "attn_pool.mlp.c_proj", when=POOLER),
        rule(("head.weight", "head.bias"), "proj", TransposeAndZeroBias(), when="projection_dim"),
    ),
    fields={
        "hidden_size": Axis("conv1.weight", 0),
        "num_channels": Axis("conv1.weight", 1),
        "patch_size": Axis("conv1.weight", 2),
        "image_size": ImageSize(),
        **_block_fields(),
        "use_cls_token": Present("class_embedding"),
        "use_post_norm": Present("ln_post.weight"),
        "use_attention_pooling": Present("attn_pool.probe"),
        "projection_dim": Axis("proj", 1, absent=0),
        "layer_scale_init_value": LayerScale(),
    },
    required=("num_attention_heads",),
)
TEXT = Part(
    entries=ENTRIES,
    any_entry=True,
    rules=(
        rule("token_embedding.weight", "token_embedding.weight"),
        _table("pos_embed", "positional_embedding"),
        *_blocks(),
        *linear("norm", "ln_final"),
        rule("head.weight", "text_projection", Transpose()),
    ),
    fields={
        "vocab_size": Axis("token_embedding.weight", 0),
        "hidden_size": Axis("token_embedding.weight", 1),
        "max_position_embeddings": Axis("positional_embedding", 0),
        **_block_fields(),
        "projection_dim": Axis("text_projection", 1),
    },
    required=("num_attention_heads",),
)
TEMPERATURE = Part(entries=ENTRIES, any_entry=True, under="logit_", rules=(rule("logit_scale", "scale"),), fields={})

PARTS = {
    "vision tower alone": VISION,
    "vision tower": replace(VISION, under="visual."),
    "text tower": TEXT,
    "temperature": TEMPERATURE,
}

LAYOUTS = (
    Layout("PeVisionModel", {"vision tower alone": ""}, videos=None, images=""),
    Layout("PeVisionModel", {"vision tower": ""}, videos=None, images=""),
    Layout("PeCoreTextModel", {"text tower": ""}, videos=None),
    Layout(
        "PeCoreModel",
        {"vision tower": "vision_model.", "text tower": "text_model.", "temperature": ""},
        configs={"vision tower": "vision_config", "text tower": "text_config"},
        videos="vision_config",
        images="vision_config",
    ),
)

MAP = FamilyMap(parts=PARTS, layouts=LAYOUTS, left_out={}, required=(), processor={"size": "image_size"})
