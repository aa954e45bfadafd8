"""PE core, PE lang and PE spatial: files of facebookresearch/perception_models (commit 3e352cca).

A file is a flat state dict, alone or under `state_dict` or `weights`. That of a video-text model has the vision tower
under "visual." and the text tower beside it; that of a vision tower alone usually has no such beginning. The vision
tower's names are those of timm's port, which transformers takes; timm splits the pooler's projection into queries and
the rest, turns the last projection around and gives it a bias, which is zero.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt
from typing import Any

from vidformers.conversion.ops import ConversionError, Op, Reshape, Split, Tensors, Transpose
from vidformers.conversion.rules import Bounded, Entry, Form, Rule, Shapes, linear, linears, under


MLP = {"mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
TABLE = "timm's tables and tokens have an axis for the batch"


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


# ---------------------------------------------------------------------------------------------- what the shapes tell


def vision_fields(shapes: Shapes, theirs: str) -> dict[str, Any]:
    """The fields of a vision tower whose names begin with `theirs`."""
    width, channels, patch_size, _ = shapes[f"{theirs}conv1.weight"]
    has_pooling, has_class_token = (f"{theirs}{name}" in shapes for name in ("attn_pool.probe", "class_embedding"))
    rows = isqrt(shapes[f"{theirs}positional_embedding"][0] - has_class_token)
    has_scale = f"{theirs}transformer.resblocks.0.ls_1.gamma" in shapes
    # A tower that pools has a projection, too: a file without one is damaged.
    has_projection = has_pooling or f"{theirs}proj" in shapes
    return {
        "hidden_size": width,
        "num_channels": channels,
        "patch_size": patch_size,
        "image_size": Bounded(rows * patch_size, lambda given: isinstance(given, int) and given // patch_size == rows),
        **_block_fields(shapes, theirs),
        "use_cls_token": has_class_token,
        "use_post_norm": f"{theirs}ln_post.weight" in shapes,
        "use_attention_pooling": has_pooling,
        "projection_dim": shapes[f"{theirs}proj"][1] if has_projection else 0,
        # Where the factors began matters to new models alone; 0.1 is that of the original's configurations.
        "layer_scale_init_value": Bounded(0.1 if has_scale else 0.0, lambda given: bool(given) == has_scale),
    }


def text_fields(shapes: Shapes) -> dict[str, Any]:
    """The fields of a text tower."""
    return {
        "vocab_size": shapes["token_embedding.weight"][0],
        "hidden_size": shapes["token_embedding.weight"][1],
        "max_position_embeddings": shapes["positional_embedding"][0],
        **_block_fields(shapes, ""),
        "projection_dim": shapes["text_projection"][1],
    }


def _block_fields(shapes: Shapes, theirs: str) -> dict[str, Any]:
    blocks = f"{theirs}transformer.resblocks"
    return {
        "num_hidden_layers": shapes.count(f"{blocks}.{{}}.ln_1.weight"),
        "intermediate_size": shapes[f"{blocks}.0.mlp.c_fc.bias"][0],
    }


# ------------------------------------------------------------------------------------------------------------- rules


def vision_rules(config: Any) -> Iterator[Rule]:
    """A vision tower."""
    width = config.hidden_size
    yield Rule("patch_embed.proj.weight", "conv1.weight")
    if config.use_cls_token:
        yield Rule("cls_token", "class_embedding", Reshape((width,), (1, 1, width)), TABLE)
    yield _table(width)
    yield from linear("norm_pre", "ln_pre")
    for i in range(config.num_hidden_layers):
        yield from under(_block(), f"blocks.{i}.", f"transformer.resblocks.{i}.")
        if config.layer_scale_init_value:
            yield Rule(f"blocks.{i}.gamma_1", f"transformer.resblocks.{i}.ls_1.gamma")
            yield Rule(f"blocks.{i}.gamma_2", f"transformer.resblocks.{i}.ls_2.gamma")
    if config.use_post_norm:
        yield from linear("norm", "ln_post")
    if config.use_attention_pooling:
        yield from under(_pooler(width), "attn_pool.", "attn_pool.")
    if config.projection_dim:
        why = "timm's projection is a layer with a bias"
        yield Rule(["head.weight", "head.bias"], "proj", TransposeAndZeroBias(), why)


def _pooler(width: int) -> Iterator[Rule]:
    yield Rule("latent", "probe")
    for leaf in ("weight", "bias"):
        why = "timm has a projection for the queries and one for keys and values"
        yield Rule([f"q.{leaf}", f"kv.{leaf}"], f"attn.in_proj_{leaf}", Split((width, 2 * width)), why)
    yield from linears({"proj": "attn.out_proj", "norm": "layernorm", **MLP})


def text_rules(config: Any) -> Iterator[Rule]:
    """A text tower."""
    yield Rule("token_embedding.weight", "token_embedding.weight")
    yield _table(config.hidden_size)
    for i in range(config.num_hidden_layers):
        yield from under(_block(), f"blocks.{i}.", f"transformer.resblocks.{i}.")
    yield from linear("norm", "ln_final")
    yield Rule("head.weight", "text_projection", Transpose(), "the original multiplies with it from the right")


def _block() -> Iterator[Rule]:
    """A block, alike in both towers."""
    for leaf in ("weight", "bias"):
        yield Rule(f"attn.qkv.{leaf}", f"attn.in_proj_{leaf}")
    yield from linears({"norm1": "ln_1", "attn.proj": "attn.out_proj", "norm2": "ln_2", **MLP})


def _table(width: int) -> Rule:
    return Rule("pos_embed", "positional_embedding", Reshape((-1, width), (1, -1, width)), TABLE)


# ------------------------------------------------------------------------------------------------------------- forms


class PeCoreForm(Form):
    """What all files of the family have in common."""

    family = "pe_core"
    entries = {"": Entry(("", "state_dict", "weights"))}

    def processor_settings(self, config: Any) -> dict[str, Any]:
        return {"size": getattr(config, "vision_config", config).image_size}


class CoreFile(PeCoreForm):
    """Both towers and the temperature."""

    title = "PE core file"
    architecture = "PeCoreModel"
    fingerprint = ("visual.conv1.weight", "token_embedding.weight", "logit_scale")
    required = ("vision_config.num_attention_heads", "text_config.num_attention_heads")

    def config_from(self, shapes: Shapes) -> dict[str, Any]:
        vision = {**vision_fields(shapes, "visual."), "projection_dim": shapes["visual.proj"][1]}
        return {"vision_config": vision, "text_config": text_fields(shapes)}

    def rules(self, config: Any) -> Iterator[Rule]:
        yield from under(vision_rules(config.vision_config), "vision_model.", "visual.")
        yield from under(text_rules(config.text_config), "text_model.")
        yield Rule("logit_scale", "logit_scale", Reshape((), (1,)), "FSDP2 cuts no scalars")


class VisionTower(PeCoreForm):
    """A vision tower alone, as PE lang and PE spatial have it."""

    title = "PE vision tower"
    architecture = "PeVisionModel"
    fingerprint = ("conv1.weight",)
    required = ("num_attention_heads",)
    beginning = ""

    def config_from(self, shapes: Shapes) -> dict[str, Any]:
        return vision_fields(shapes, self.beginning)

    def rules(self, config: Any) -> Iterator[Rule]:
        yield from under(vision_rules(config), "", self.beginning)


class NestedVisionTower(VisionTower):
    """A vision tower alone, with the names that it has in a PE core file."""

    title = "PE vision tower, names under visual"
    fingerprint = ("visual.conv1.weight",)
    beginning = "visual."


class VisionTowerOfCoreFile(NestedVisionTower):
    """The vision tower of a PE core file."""

    title = "vision tower of a PE core file"
    on_request = True
    fingerprint = CoreFile.fingerprint
    left_out = {
        **dict.fromkeys(
            ("token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection"),
            "PeVisionModel has no text tower",
        ),
        "logit_scale": "PeVisionModel has no temperature",
    }


class TextTower(PeCoreForm):
    """A text tower alone."""

    title = "PE core text tower"
    architecture = "PeCoreTextModel"
    fingerprint = ("token_embedding.weight", "text_projection")
    required = ("num_attention_heads",)

    def config_from(self, shapes: Shapes) -> dict[str, Any]:
        return text_fields(shapes)

    def rules(self, config: Any) -> Iterator[Rule]:
        yield from text_rules(config)


class TextTowerOfCoreFile(TextTower):
    """The text tower of a PE core file."""

    title = "text tower of a PE core file"
    on_request = True
    fingerprint = CoreFile.fingerprint
    left_out = {
        "visual": "PeCoreTextModel has no vision tower",
        "logit_scale": "PeCoreTextModel has no temperature",
    }


FORMS = (CoreFile(), VisionTowerOfCoreFile(), TextTowerOfCoreFile(), VisionTower(), NestedVisionTower(), TextTower())
