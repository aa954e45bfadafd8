"""V-JEPA 2: files of facebookresearch/vjepa2 (commit c2963a47) and the names of transformers 5.23.

A hub file holds the state dicts `encoder`, `target_encoder` (its moving average, which evaluations use; files of
distilled V-JEPA 2.1 models call it `ema_encoder`) and `predictor`; a probe file holds a list `classifiers` with one
state dict per head of a training sweep. Their names come from
`src/models/{vision_transformer,predictor,ac_predictor,attentive_pooler}.py`,
`evals/action_anticipation_frozen/models.py` and, for V-JEPA 2.1, `app/vjepa_2_1/models` (commit 204698b4). Tensors
that transformers doesn't have keep the original's terms.
"""

from dataclasses import replace
from typing import Any

from vidformers.conversion.core import (
    Axis,
    Count,
    FamilyMap,
    Layout,
    Op,
    Part,
    Present,
    Ratio,
    Reader,
    Rule,
    Shapes,
    Split,
    Stack,
    drop,
    linear,
    rule,
)
from vidformers.models.vjepa2.presets import VJEPA2_1_LEVELS


class Implied(Present):
    """What a tensor's presence says of computations that leave no trace of their own; overrides may say otherwise."""

    def agrees(self, given: Any, shapes: Shapes) -> bool:
        return True


class Levels(Reader):
    """`hierarchical_layers`, which the original takes from a table by depth."""

    tensor = "norms_block.0.weight"

    def read(self, shapes: Shapes) -> list[int] | None:
        if self.tensor not in shapes:
            return None
        return VJEPA2_1_LEVELS[Count("blocks.{i}.norm1.weight").read(shapes)]

    def agrees(self, given: list[int], shapes: Shapes) -> bool:
        return len(given) == Count("norms_block.{i}.weight").read(shapes)


class DistillationOutputs(Reader):
    """`num_distillation_outputs`: several levels enter by an MLP as wide as one of them."""

    tensor = "predictor_embed.0.weight"

    def read(self, shapes: Shapes) -> int:
        if self.tensor not in shapes:
            return 1
        width, inputs = shapes[self.tensor]
        return inputs // width


class TeacherWidth(Reader):
    """`teacher_embed_dim`: the width of a predicted level, `None` where it is that of the encoder."""

    tensor = "predictor_proj.weight"

    def read(self, shapes: Shapes) -> int | None:
        several, one = DistillationOutputs.tensor, "predictor_embed.weight"
        if self.tensor not in shapes or not {several, one} & set(shapes):
            return None
        width = shapes[several][0] if several in shapes else shapes[one][1]
        predicted = self._width(shapes)
        return None if predicted == width else predicted

    def agrees(self, given: int, shapes: Shapes) -> bool:
        return given == self._width(shapes)

    def _width(self, shapes: Shapes) -> int:
        return shapes[self.tensor][0] // DistillationOutputs().read(shapes)


def _layers(target: str, source: str, names: dict[str, str], repeat: str | None = None) -> tuple[Rule, ...]:
    """The rules of the layers `source.<value>` → `target.<key>`."""
    pairs = (linear(f"{target}.{ours}", f"{source}.{theirs}", repeat=repeat) for ours, theirs in names.items())
    return tuple(entry for pair in pairs for entry in pair)


def _fused(target: str, source: str, names: tuple[str, ...], **options: str) -> tuple[Rule, ...]:
    """The rules of a projection that the original computes at once and ours by its parts `target.<name>`."""
    split: Op = Split(len(names))
    return linear(tuple(f"{target}.{name}" for name in names), source, split, **options)


BLOCK = {
    "norm1": "norm1",
    "attention.proj": "attn.proj",
    "norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
ROTARY = "a table of absolute positions; the model has rotary ones and never reads it"

MODALITIES = ("img_mod_embed", "video_mod_embed")

ENCODER = Part(
    entries=("target_encoder", "encoder", "ema_encoder", ""),
    prefix="module.backbone.",
    rules=(
        *linear("encoder.embeddings.patch_embeddings.proj", "patch_embed.proj"),
        *_layers("encoder.layer.{i}", "blocks.{i}", BLOCK, repeat="num_hidden_layers"),
        *_fused(
            "encoder.layer.{i}.attention",
            "blocks.{i}.attn.qkv",
            ("query", "key", "value"),
            repeat="num_hidden_layers",
            bias_when="qkv_bias",
        ),
        *linear("encoder.layernorm", "norm", unless="hierarchical_layers"),
        *linear("encoder.norms_block.{i}", "norms_block.{i}", repeat="hierarchical_layers"),
        *linear(
            "encoder.embeddings.patch_embeddings_img.proj", "patch_embed_img.proj", when="use_image_patch_embedder"
        ),
        *(rule(f"encoder.embeddings.{name}", name, when="use_modality_embeddings") for name in MODALITIES),
        drop("pos_embed", ROTARY),
    ),
    fields={
        "hidden_size": Axis("patch_embed.proj.weight", 0),
        "in_chans": Axis("patch_embed.proj.weight", 1),
        "tubelet_size": Axis("patch_embed.proj.weight", 2),
        "patch_size": Axis("patch_embed.proj.weight", 3),
        "num_hidden_layers": Count("blocks.{i}.norm1.weight"),
        "mlp_ratio": Ratio("blocks.0.mlp.fc1.weight"),
        "qkv_bias": Present("blocks.0.attn.qkv.bias"),
        "hierarchical_layers": Levels(),
        "use_modality_embeddings": Present("video_mod_embed"),
        "use_image_patch_embedder": Present("patch_embed_img.proj.weight"),
        "use_rope_interleave": Implied("norms_block.0.weight"),
        "interpolate_rope": Implied("norms_block.0.weight"),
    },
)

PREDICTOR_BLOCKS = (
    *_layers("predictor.layer.{i}", "predictor_blocks.{i}", BLOCK, repeat="pred_num_hidden_layers"),
    *_fused(
        "predictor.layer.{i}.attention",
        "predictor_blocks.{i}.attn.qkv",
        ("query", "key", "value"),
        repeat="pred_num_hidden_layers",
        bias_when="qkv_bias",
    ),
    *linear("predictor.layernorm", "predictor_norm"),
    *linear("predictor.proj", "predictor_proj"),
)
PREDICTOR_FIELDS = {
    "pred_hidden_size": Axis("predictor_norm.weight", 0),
    "pred_num_hidden_layers": Count("predictor_blocks.{i}.norm1.weight"),
    "pred_mlp_ratio": Ratio("predictor_blocks.0.mlp.fc1.weight"),
}

PREDICTOR = Part(
    entries=("predictor",),
    prefix="module.backbone.",
    presence="use_predictor",
    marker="mask_tokens.0",
    rules=(
        *linear("predictor.embeddings.predictor_embeddings", "predictor_embed", when=("num_distillation_outputs", 1)),
        *(
            entry
            for index in (0, 2)
            for entry in linear(
                f"predictor.embeddings.predictor_embeddings.{index}",
                f"predictor_embed.{index}",
                unless=("num_distillation_outputs", 1),
            )
        ),
        *(rule(f"predictor.embeddings.{name}", name, when="use_modality_embeddings") for name in MODALITIES),
        rule("predictor.embeddings.mask_tokens", "mask_tokens.{i}", Stack(), repeat="pred_num_mask_tokens"),
        *PREDICTOR_BLOCKS,
        *linear("predictor.proj_context", "predictor_proj_context", when="use_context_projection"),
        drop("predictor_pos_embed", ROTARY),
    ),
    fields={
        **PREDICTOR_FIELDS,
        "pred_num_mask_tokens": Count("mask_tokens.{i}"),
        "num_distillation_outputs": DistillationOutputs(),
        "teacher_embed_dim": TeacherWidth(),
        "use_context_projection": Present("predictor_proj_context.weight"),
    },
)

AC_ENCODER = replace(ENCODER, entries=("encoder", "target_encoder", ""), prefix="module.")
AC_PREDICTOR = Part(
    entries=("predictor",),
    prefix="module.",
    marker="action_encoder.weight",
    rules=(
        *linear("predictor.embeddings.predictor_embeddings", "predictor_embed"),
        *linear("predictor.embeddings.action_encoder", "action_encoder"),
        *linear("predictor.embeddings.state_encoder", "state_encoder"),
        *linear("predictor.embeddings.extrinsics_encoder", "extrinsics_encoder"),
        *PREDICTOR_BLOCKS,
    ),
    fields={**PREDICTOR_FIELDS, "action_embed_dim": Axis("action_encoder.weight", 1)},
)

POOLER = (
    rule("pooler.query_tokens", "pooler.query_tokens"),
    *_layers(
        "pooler.self_attention_layers.{i}",
        "pooler.blocks.{i}",
        {
            "layer_norm1": "norm1",
            "self_attn.out_proj": "attn.proj",
            "layer_norm2": "norm2",
            "mlp.fc1": "mlp.fc1",
            "mlp.fc2": "mlp.fc2",
        },
        repeat="num_pooler_layers",
    ),
    *_fused(
        "pooler.self_attention_layers.{i}.self_attn",
        "pooler.blocks.{i}.attn.qkv",
        ("q_proj", "k_proj", "v_proj"),
        repeat="num_pooler_layers",
    ),
    *_layers(
        "pooler.cross_attention_layer",
        "pooler.cross_attention_block",
        {
            "layer_norm1": "norm1",
            "cross_attn.q_proj": "xattn.q",
            "layer_norm2": "norm2",
            "mlp.fc1": "mlp.fc1",
            "mlp.fc2": "mlp.fc2",
        },
    ),
    *_fused("pooler.cross_attention_layer.cross_attn", "pooler.cross_attention_block.xattn.kv", ("k_proj", "v_proj")),
)
POOLER_FIELDS = {"num_pooler_layers": Count("pooler.blocks.{i}.norm1.weight")}

PROBE = Part(
    file="probe",
    entries=("classifiers/{index}",),
    prefix="module.",
    rules=(*POOLER, *linear("classifier", "linear")),
    fields={**POOLER_FIELDS, "num_labels": Axis("linear.weight", 0)},
)

ANTICIPATION_PROBE = Part(
    file="probe",
    entries=("classifiers/{index}",),
    prefix="module.",
    rules=(
        *POOLER,
        *linear("verb_classifier", "verb_classifier", when="num_verb_labels"),
        *linear("noun_classifier", "noun_classifier", when="num_verb_labels"),
        *linear("action_classifier", "action_classifier"),
    ),
    fields={
        **POOLER_FIELDS,
        # A probe of actions alone has neither of the other two heads.
        "num_verb_labels": Axis("verb_classifier.weight", 0, absent=0),
        "num_noun_labels": Axis("noun_classifier.weight", 0, absent=0),
        "num_labels": Axis("action_classifier.weight", 0),
    },
)

MAP = FamilyMap(
    parts={
        "ac_encoder": AC_ENCODER,
        "ac_predictor": AC_PREDICTOR,
        "encoder": ENCODER,
        "predictor": PREDICTOR,
        "probe": PROBE,
        "anticipation_probe": ANTICIPATION_PROBE,
    },
    layouts=(
        Layout("VJEPA2Model", {"encoder": "", "predictor": ""}, optional=("predictor",)),
        Layout("VJEPA2ACModel", {"ac_encoder": "", "ac_predictor": ""}),
        Layout("VJEPA2ForVideoClassification", {"encoder": "vjepa2.", "probe": ""}),
        Layout(
            "VJEPA2ForActionAnticipation", {"encoder": "vjepa2.", "predictor": "vjepa2.", "anticipation_probe": ""}
        ),
    ),
    left_out={"opt": "state of the optimiser", "scaler": "state of the gradient scaler"},
    required=("num_attention_heads", "crop_size", "frames_per_clip"),
    processor={"crop_size": "crop_size"},
)
