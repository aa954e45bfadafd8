"""V-JEPA 2: files of facebookresearch/vjepa2 (commit c2963a47) and the names of transformers 5.23.

A hub file holds the state dicts `encoder`, `target_encoder` (its moving average, which evaluations use) and
`predictor`; a probe file holds a list `classifiers` with one state dict per head of a training sweep. Their names come
from `src/models/{vision_transformer,predictor,attentive_pooler}.py` and `evals/action_anticipation_frozen/models.py`.
"""

from ..core import Axis, Count, FamilyMap, Layout, Op, Part, Present, Ratio, Rule, Split, Stack, drop, linear, rule


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

ENCODER = Part(
    entries=("target_encoder", "encoder", ""),
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
        *linear("encoder.layernorm", "norm"),
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
    },
)

PREDICTOR = Part(
    entries=("predictor",),
    prefix="module.backbone.",
    presence="use_predictor",
    rules=(
        *linear("predictor.embeddings.predictor_embeddings", "predictor_embed"),
        rule("predictor.embeddings.mask_tokens", "mask_tokens.{i}", Stack(), repeat="pred_num_mask_tokens"),
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
        drop("predictor_pos_embed", ROTARY),
    ),
    fields={
        "pred_hidden_size": Axis("predictor_embed.weight", 0),
        "pred_num_mask_tokens": Count("mask_tokens.{i}"),
        "pred_num_hidden_layers": Count("predictor_blocks.{i}.norm1.weight"),
        "pred_mlp_ratio": Ratio("predictor_blocks.0.mlp.fc1.weight"),
    },
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
        "encoder": ENCODER,
        "predictor": PREDICTOR,
        "probe": PROBE,
        "anticipation_probe": ANTICIPATION_PROBE,
    },
    layouts=(
        Layout("VJEPA2Model", {"encoder": "", "predictor": ""}, optional=("predictor",)),
        Layout("VJEPA2ForVideoClassification", {"encoder": "vjepa2.", "probe": ""}),
        Layout(
            "VJEPA2ForActionAnticipation", {"encoder": "vjepa2.", "predictor": "vjepa2.", "anticipation_probe": ""}
        ),
    ),
    left_out={"opt": "state of the optimiser", "scaler": "state of the gradient scaler"},
    required=("num_attention_heads", "crop_size", "frames_per_clip"),
    processor={"crop_size": "crop_size"},
)
