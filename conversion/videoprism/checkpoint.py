"""VideoPrism: files of google-deepmind/videoprism (commit d481d91b) and the names of transformers 5.23.

A file is an archive of numpy arrays with names such as `params/vision_encoder/spatial_ln/scale`. There are three
trees, from `videoprism/encoders.py`: the video encoder, the encoder with an attention pooler and a classifier, and the
video-text model. Published files hold the blocks of a stack in one array each (flax's `scan`); training without
`scan` leaves one tree per block, and gives the parts called "…, block by block" here. What transformers has no name
for keeps that of our models.
"""

from dataclasses import dataclass, replace
from math import isqrt
from typing import Any

from vidformers.conversion.core import (
    Axis,
    Chain,
    Copy,
    Count,
    FamilyMap,
    Layout,
    Op,
    Part,
    Reader,
    Reshape,
    Rule,
    Shapes,
    Transpose,
    Unstack,
    rule,
)


CHANNELS = 3
BLOCK_BY_BLOCK = ", block by block"


# ----------------------------------------------------------------------------------------------------------- readers


@dataclass(frozen=True)
class Tubelet(Reader):
    """`tubelet_size`, from the values of a square patch with three channels."""

    tensor: str = "patch_projection/linear/kernel"

    def read(self, shapes: Shapes) -> list[int]:
        return [1, _side(shapes), _side(shapes)]

    def agrees(self, given: Any, shapes: Shapes) -> bool:
        return list(given) == self.read(shapes)


@dataclass(frozen=True)
class ImageSize(Reader):
    """`image_size`, from the length of the table of spatial positions; unknown unless that is a square number."""

    tensor: str = "spatial_pos_emb/emb_var"

    def read(self, shapes: Shapes) -> int | None:
        count = shapes[self.tensor][0]
        return isqrt(count) * _side(shapes) if isqrt(count) ** 2 == count else None

    def agrees(self, given: Any, shapes: Shapes) -> bool:
        height, width = (given, given) if isinstance(given, int) else given
        return (height // _side(shapes)) * (width // _side(shapes)) == shapes[self.tensor][0]


@dataclass(frozen=True)
class NormPolicy(Reader):
    """`norm_policy`: norms after attention and MLP have a name of their own."""

    tensor: str

    def read(self, shapes: Shapes) -> str:
        return "primer_hybrid" if self.tensor in shapes else "pre"


def _side(shapes: Shapes) -> int:
    """Height and width of a patch in pixels."""
    return isqrt(shapes[Tubelet.tensor][0] // CHANNELS)


# ------------------------------------------------------------------------------------------------------------- rules

SAME = Copy()
LINEAR = Transpose()
# Arrays (width, heads, channels of a head). The original multiplies attention's output with "…NH,DNH->…D".
INTO_HEADS = Chain((Reshape(("hidden_size", "num_attention_heads", -1), ("hidden_size", -1)), Transpose()))
OUT_OF_HEADS = Reshape(("hidden_size", "num_attention_heads", -1), ("hidden_size", -1))
PER_HEAD = Reshape(("num_attention_heads", -1), (-1,))
ONE_MORE_AXIS = Reshape((-1, "hidden_size"), (1, -1, "hidden_size"))
# (rows · columns · channels, width) → (width, channels, frames = 1, rows, columns)
PIXELS = ("tubelet_size.1", "tubelet_size.2", "num_channels", 1, "hidden_size")
PATCHES = Chain((Reshape((-1, "hidden_size"), PIXELS), Transpose((4, 2, 3, 0, 1))))


def _norm(target: str, source: str, op: Op = SAME, **options: Any) -> tuple[Rule, ...]:
    return (
        rule(f"{target}.weight", f"{source}/scale", op, **options),
        rule(f"{target}.bias", f"{source}/bias", op, **options),
    )


def _attention(target: str, source: str, within: Any = lambda op: op, **options: Any) -> tuple[Rule, ...]:
    """The rules of four projections; `within` puts an operation on one block's arrays into one on the file's."""
    rules = []
    for ours, theirs in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value")):
        rules.append(rule(f"{target}.{ours}.weight", f"{source}/{theirs}/w", within(INTO_HEADS), **options))
        rules.append(rule(f"{target}.{ours}.bias", f"{source}/{theirs}/b", within(PER_HEAD), **options))
    rules.append(rule(f"{target}.o_proj.weight", f"{source}/post/w", within(OUT_OF_HEADS), **options))
    rules.append(rule(f"{target}.o_proj.bias", f"{source}/post/b", within(SAME), **options))
    return tuple(rules)


def _stack(target: str, source: str, repeat: str, scanned: bool, hybrid: bool = False) -> tuple[Rule, ...]:
    """The rules of the blocks `target.{i}`; `hybrid` for a stack that may have norms on both sides."""
    blocks = f"{source}/x_layers" if scanned else f"{source}/x_layers_{{i}}"
    target = f"{target}.{{i}}"

    def within(op: Op) -> Op:
        return Chain((Unstack(), op)) if scanned else op

    norms = {"layernorm_before": "layer_norm", "layernorm_after": "ff_layer/layer_norm"}
    hybrid_norms = {
        "layernorm_before": "pre_layer_norm",
        "attention_post_layernorm": "post_layer_norm",
        "layernorm_after": "ff_layer/pre_layer_norm",
        "mlp_post_layernorm": "ff_layer/post_layer_norm",
    }
    rules = list(_attention(f"{target}.attention", f"{blocks}/self_attention", within, repeat=repeat))
    for ours, theirs in (("fc1", "ffn_layer1"), ("fc2", "ffn_layer2")):
        layer = f"{blocks}/ff_layer/{theirs}/linear"
        rules.append(rule(f"{target}.mlp.{ours}.weight", f"{layer}/kernel", within(LINEAR), repeat=repeat))
        rules.append(rule(f"{target}.mlp.{ours}.bias", f"{layer}/bias", within(SAME), repeat=repeat))
    for policy, names in (("pre", norms), ("primer_hybrid", hybrid_norms if hybrid else {})):
        when = ("norm_policy", policy) if hybrid else None
        for ours, theirs in names.items():
            rules += _norm(f"{target}.{ours}", f"{blocks}/{theirs}", within(SAME), repeat=repeat, when=when)
    return tuple(rules)


def _layer_count(source: str, scanned: bool) -> Reader:
    if scanned:
        return Axis(f"{source}/x_layers/self_attention/post/b", 0)
    return Count(f"{source}/x_layers_{{i}}/self_attention/post/b")


def _block_fields(source: str, scanned: bool) -> dict[str, Reader]:
    """What the shapes of a stack's first block say."""
    block, first = (f"{source}/x_layers", 1) if scanned else (f"{source}/x_layers_0", 0)
    return {
        "num_attention_heads": Axis(f"{block}/self_attention/query/w", first + 1),
        "intermediate_size": Axis(f"{block}/ff_layer/ffn_layer1/linear/bias", first),
    }


# ------------------------------------------------------------------------------------------------------------- parts


def _encoder(entry: str, scanned: bool) -> Part:
    stacks = {name: f"{name}_encoder/transformers_stack" for name in ("spatial", "temporal")}
    return Part(
        entries=(entry,),
        rules=(
            rule("spatial_embeddings.patch_embeddings.projection.weight", "patch_projection/linear/kernel", PATCHES),
            rule("spatial_embeddings.patch_embeddings.projection.bias", "patch_projection/linear/bias"),
            *(
                rule(f"{name}_embeddings.position_embeddings", f"{name}_pos_emb/emb_var", ONE_MORE_AXIS)
                for name in stacks
            ),
            *(
                entry
                for name, stack in stacks.items()
                for entry in _stack(f"{name}_layers", stack, f"num_{name}_layers", scanned)
            ),
            *_norm("layernorm1", "spatial_ln"),
            *_norm("layernorm2", "temporal_ln"),
        ),
        fields={
            "hidden_size": Axis("patch_projection/linear/kernel", 1),
            "tubelet_size": Tubelet(),
            "image_size": ImageSize(),
            "num_frames": Axis("temporal_pos_emb/emb_var", 0),
            **{f"num_{name}_layers": _layer_count(stack, scanned) for name, stack in stacks.items()},
            **_block_fields(stacks["spatial"], scanned),
        },
        required=("image_size",),
    )


def _auxiliary(scanned: bool) -> Part:
    count = "num_auxiliary_layers"
    return Part(
        entries=("params/auxiliary_encoder",),
        rules=_stack("auxiliary_layers", "transformers_stack", count, scanned),
        fields={count: _layer_count("transformers_stack", scanned)},
        presence=count,
    )


def _text(scanned: bool) -> Part:
    stack = "unimodal_transformer"
    post_norm = "x_layers/post_layer_norm/scale" if scanned else "x_layers_0/post_layer_norm/scale"
    return Part(
        entries=("params/text_encoder",),
        rules=(
            rule("embeddings.token_embedding.weight", "token_emb/emb_var"),
            rule("embeddings.cls_emb", "cls_emb"),
            *_stack("layers", stack, "num_hidden_layers", scanned, hybrid=True),
            *_norm("layernorm", "unimodal_ln"),
        ),
        fields={
            "vocab_size": Axis("token_emb/emb_var", 0),
            "hidden_size": Axis("token_emb/emb_var", 1),
            "num_hidden_layers": _layer_count(stack, scanned),
            "norm_policy": NormPolicy(f"{stack}/{post_norm}"),
            **_block_fields(stack, scanned),
        },
    )


VIDEO_POOLER = Part(
    entries=("params/contrastive_vision_pooler",),
    rules=(
        *_attention("head", "pooling_attention"),
        rule("head.per_dim_scale", "pooling_attention/per_dim_scale/per_dim_scale"),
        rule("head.pooling_attention_query", "pooling_attention_query", ONE_MORE_AXIS),
        *_norm("head_layernorm", "pooling_attention_layer_norm"),
    ),
    fields={
        "pooler_head_dim": Axis("pooling_attention/per_dim_scale/per_dim_scale", 0),
        "num_pooling_queries": Axis("pooling_attention_query", 0),
    },
)
CLASSIFIER = Part(
    entries=("params/projection",),
    rules=(
        rule("classifier.weight", "linear/kernel", LINEAR),
        rule("classifier.bias", "linear/bias"),
    ),
    fields={"num_labels": Axis("linear/bias", 0)},
)

POOLERS = {
    "video pooler": VIDEO_POOLER,
    "classifier's pooler": replace(VIDEO_POOLER, entries=("params/atten_pooler",)),
    "classifier": CLASSIFIER,
}


def _towers(form: str, scanned: bool) -> dict[str, Part]:
    """The parts that are stacks of blocks, in one of the two forms of files."""
    return {
        f"encoder{form}": _encoder("params", scanned),
        f"classifier's encoder{form}": _encoder("params/encoder", scanned),
        f"video encoder{form}": _encoder("params/vision_encoder", scanned),
        f"auxiliary encoder{form}": _auxiliary(scanned),
        f"text encoder{form}": _text(scanned),
    }


def _layouts(form: str) -> tuple[Layout, ...]:
    """The model classes, made from files of one form."""
    auxiliary, text = f"auxiliary encoder{form}", f"text encoder{form}"
    video = {f"video encoder{form}": "vision_model.", auxiliary: "", "video pooler": ""}
    return (
        Layout("VideoPrismVisionModel", {f"encoder{form}": ""}),
        Layout(
            "VideoPrismForVideoClassification",
            {f"classifier's encoder{form}": "vision_model.", "classifier's pooler": "", "classifier": ""},
        ),
        Layout(
            "VideoPrismClipModel",
            {**{name: f"video_model.{prefix}" for name, prefix in video.items()}, text: "text_model."},
            optional=(auxiliary,),
            configs={**dict.fromkeys(video, "vision_config"), text: "text_config"},
            videos="vision_config",
        ),
        Layout("VideoPrismVideoModel", video, optional=(auxiliary,)),
        Layout("VideoPrismTextModel", {text: ""}, videos=None),
    )


MAP = FamilyMap(
    parts={**_towers("", scanned=True), **_towers(BLOCK_BY_BLOCK, scanned=False), **POOLERS},
    layouts=(*_layouts(""), *_layouts(BLOCK_BY_BLOCK)),
    left_out={},
    required=(),
    processor={"num_frames": "num_frames", "size": "image_size"},
)
