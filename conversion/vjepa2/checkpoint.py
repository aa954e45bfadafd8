"""V-JEPA 2: files of facebookresearch/vjepa2 (commit c2963a47) and the names of transformers.

A hub file holds the state dicts `encoder`, `target_encoder` (its moving average, which evaluations use; files of
distilled V-JEPA 2.1 models call it `ema_encoder`) and `predictor`, of which pre-training needs all; a probe file holds
a list `classifiers` with one state dict per head of a training sweep. Their names come from
`src/models/{vision_transformer,predictor,ac_predictor,attentive_pooler}.py`,
`evals/action_anticipation_frozen/models.py` and, for V-JEPA 2.1, `app/vjepa_2_1/models` (commit 204698b4). Tensors
that transformers doesn't have keep the original's terms.
"""

from collections.abc import Iterator
from typing import Any

from vidformers.conversion.ops import Split, Stack
from vidformers.conversion.rules import Bounded, Entry, Form, Rule, Shapes, leave_out, linear, linears, under
from vidformers.models.vjepa2.presets import VJEPA2_1_LEVELS


FUSED = "the original computes queries, keys and values in one projection"
FUSED_PAIR = "the original computes keys and values in one projection"
ROTARY = "a table of absolute positions; the model has rotary ones and never reads it"
MODALITIES = ("img_mod_embed", "video_mod_embed")
MLP = {"mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
LAYERS = {"norm1": "norm1", "attention.proj": "attn.proj", "norm2": "norm2", **MLP}
SELF_LAYERS = {"layer_norm1": "norm1", "layer_norm2": "norm2", **MLP, "self_attn.out_proj": "attn.proj"}
CROSS_LAYERS = {"layer_norm1": "norm1", "layer_norm2": "norm2", **MLP, "cross_attn.q_proj": "xattn.q"}


# ---------------------------------------------------------------------------------------------- what the shapes tell


def encoder_fields(shapes: Shapes) -> dict[str, Any]:
    """The fields that the encoder fixes."""
    width, channels, tubelet, patch, _ = shapes["encoder/patch_embed.proj.weight"]
    depth, levels = (shapes.count(f"encoder/{name}.weight") for name in ("blocks.{}.norm1", "norms_block.{}"))
    return {
        "hidden_size": width,
        "in_chans": channels,
        "tubelet_size": tubelet,
        "patch_size": patch,
        "num_hidden_layers": depth,
        "mlp_ratio": shapes.ratio("encoder/blocks.0.mlp.fc1.weight"),
        "qkv_bias": "encoder/blocks.0.attn.qkv.bias" in shapes,
        "hierarchical_layers": Bounded(
            VJEPA2_1_LEVELS.get(depth) if levels else None, lambda given: len(given) == levels
        ),
        "use_modality_embeddings": "encoder/video_mod_embed" in shapes,
        "use_image_patch_embedder": "encoder/patch_embed_img.proj.weight" in shapes,
        # Several norms, which V-JEPA 2.1 alone has, go with computations that leave no trace of their own.
        "use_rope_interleave": Bounded(levels > 0),
        "interpolate_rope": Bounded(levels > 0),
    }


def predictor_sizes(shapes: Shapes) -> dict[str, Any]:
    """The fields that any predictor fixes."""
    return {
        "pred_hidden_size": shapes["predictor/predictor_norm.weight"][0],
        "pred_num_hidden_layers": shapes.count("predictor/predictor_blocks.{}.norm1.weight"),
        "pred_mlp_ratio": shapes.ratio("predictor/predictor_blocks.0.mlp.fc1.weight"),
    }


def predictor_fields(shapes: Shapes) -> dict[str, Any]:
    """The fields that the predictor of masked tokens fixes."""
    # Several levels enter by an MLP as wide as one of them.
    width, inputs = shapes.get("predictor/predictor_embed.0.weight", (1, 1))
    encoders = shapes["encoder/patch_embed.proj.weight"][0]
    predicted = shapes.get("predictor/predictor_proj.weight", (encoders * inputs // width,))[0] * width // inputs
    return {
        **predictor_sizes(shapes),
        "use_predictor": True,
        "pred_num_mask_tokens": shapes.count("predictor/mask_tokens.{}"),
        "num_distillation_outputs": inputs // width,
        "teacher_embed_dim": Bounded(None if predicted == encoders else predicted, lambda given: given == predicted),
        "use_context_projection": "predictor/predictor_proj_context.weight" in shapes,
    }


# ------------------------------------------------------------------------------------------------------------- rules


def encoder_rules(config: Any) -> Iterator[Rule]:
    """An encoder."""
    yield from linear("embeddings.patch_embeddings.proj", "patch_embed.proj")
    if config.use_image_patch_embedder:
        yield from linear("embeddings.patch_embeddings_img.proj", "patch_embed_img.proj")
    if config.use_modality_embeddings:
        yield from (Rule(f"embeddings.{name}", name) for name in MODALITIES)
    for i in range(config.num_hidden_layers):
        yield from under(_block(config), f"layer.{i}.", f"blocks.{i}.")
    if config.hierarchical_layers:
        for i in range(len(config.hierarchical_layers)):
            yield from linear(f"norms_block.{i}", f"norms_block.{i}")
    else:
        yield from linear("layernorm", "norm")
    yield from leave_out(["pos_embed"], ROTARY)


def predictor_rules(config: Any) -> Iterator[Rule]:
    """The predictor of masked tokens."""
    embeddings = "embeddings.predictor_embeddings"
    if config.num_distillation_outputs == 1:
        yield from linear(embeddings, "predictor_embed")
    else:
        for i in (0, 2):
            yield from linear(f"{embeddings}.{i}", f"predictor_embed.{i}")
    if config.use_modality_embeddings:
        yield from (Rule(f"embeddings.{name}", name) for name in MODALITIES)
    tokens = [f"mask_tokens.{i}" for i in range(config.pred_num_mask_tokens)]
    yield Rule("embeddings.mask_tokens", tokens, Stack(), "ours are one parameter")
    yield from _predictor_blocks(config)
    if config.use_context_projection:
        yield from linear("proj_context", "predictor_proj_context")
    yield from leave_out(["predictor_pos_embed"], ROTARY)


def action_predictor_rules(config: Any) -> Iterator[Rule]:
    """The predictor of the next frames from actions."""
    yield from linear("embeddings.predictor_embeddings", "predictor_embed")
    for name in ("action_encoder", "state_encoder", "extrinsics_encoder"):
        yield from linear(f"embeddings.{name}", name)
    yield from _predictor_blocks(config)


def _predictor_blocks(config: Any) -> Iterator[Rule]:
    for i in range(config.pred_num_hidden_layers):
        yield from under(_block(config), f"layer.{i}.", f"predictor_blocks.{i}.")
    yield from linear("layernorm", "predictor_norm")
    yield from linear("proj", "predictor_proj")


def pooler_rules(config: Any) -> Iterator[Rule]:
    """The attentive pooler of a probe."""
    yield Rule("query_tokens", "query_tokens")
    for i in range(config.num_pooler_layers):
        attention = [f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj")]
        block = [*linears(SELF_LAYERS), *linear(attention, "attn.qkv", Split(3), FUSED)]
        yield from under(block, f"self_attention_layers.{i}.", f"blocks.{i}.")
    attention = ["cross_attn.k_proj", "cross_attn.v_proj"]
    block = [*linears(CROSS_LAYERS), *linear(attention, "xattn.kv", Split(2), FUSED_PAIR)]
    yield from under(block, "cross_attention_layer.", "cross_attention_block.")


def _block(config: Any) -> Iterator[Rule]:
    yield from linears(LAYERS)
    names = [f"attention.{name}" for name in ("query", "key", "value")]
    yield from linear(names, "attn.qkv", Split(3), FUSED, config.qkv_bias)


# ------------------------------------------------------------------------------------------------------------- forms

ENCODER = Entry(("target_encoder", ""), versions=("encoder", "ema_encoder"), prefix="module.backbone.")
PREDICTOR = Entry(("predictor",), prefix="module.backbone.")
PROBE = Entry(("classifiers/{index}",), file="probe", prefix="module.")
PATCHES = "encoder/patch_embed.proj.weight"


class VJEPA2Form(Form):
    """What all files of the family have in common: an encoder and, as an entry of their own, maybe a predictor."""

    family = "vjepa2"
    required = ("num_attention_heads", "crop_size", "frames_per_clip")
    ours = ""  # what the names of our encoder and predictor begin with

    def config_from(self, shapes: Shapes) -> dict[str, Any]:
        fields = encoder_fields(shapes)
        return fields | (predictor_fields(shapes) if "predictor" in self.entries else {"use_predictor": False})

    def rules(self, config: Any) -> Iterator[Rule]:
        yield from under(encoder_rules(config), f"{self.ours}encoder.", "encoder/")
        if "predictor" in self.entries:
            yield from under(predictor_rules(config), f"{self.ours}predictor.", "predictor/")

    def processor_settings(self, config: Any) -> dict[str, Any]:
        return {"crop_size": config.crop_size}


class ActionConditionedFile(VJEPA2Form):
    """A predictor of the next frames from actions, and the encoder that it was trained on."""

    title = "V-JEPA 2-AC hub file"
    architecture = "VJEPA2ACModel"
    entries = {
        "encoder": Entry(("encoder", ""), versions=("target_encoder",), prefix="module."),
        "predictor": Entry(("predictor",), prefix="module."),
    }
    fingerprint = (PATCHES, "predictor/action_encoder.weight")

    def config_from(self, shapes: Shapes) -> dict[str, Any]:
        actions = shapes["predictor/action_encoder.weight"][1]
        return {**encoder_fields(shapes), **predictor_sizes(shapes), "action_embed_dim": actions}

    def rules(self, config: Any) -> Iterator[Rule]:
        yield from under(encoder_rules(config), "encoder.", "encoder/")
        yield from under(action_predictor_rules(config), "predictor.", "predictor/")


class ActionTrainingFile(ActionConditionedFile):
    """The same tensors, to train the predictor on."""

    title = "V-JEPA 2-AC training file"
    architecture = "VJEPA2ACForPreTraining"
    on_request = True


class HubFile(VJEPA2Form):
    """Encoder and predictor."""

    title = "V-JEPA 2 hub file"
    architecture = "VJEPA2Model"
    entries = {"encoder": ENCODER, "predictor": PREDICTOR}
    fingerprint = (PATCHES, "predictor/mask_tokens.0")


class PreTrainingFile(HubFile):
    """Encoder, predictor and teacher, which a training goes on from."""

    title = "V-JEPA 2 pre-training file"
    architecture = "VJEPA2ForPreTraining"
    on_request = True
    entries = {
        "encoder": Entry(("encoder",), prefix="module.backbone."),
        "predictor": PREDICTOR,
        "teacher": Entry(("target_encoder", "ema_encoder"), prefix="module.backbone."),
    }
    fingerprint = (PATCHES, "predictor/mask_tokens.0", "teacher/patch_embed.proj.weight")
    ours = "vjepa2."

    def config_from(self, shapes: Shapes) -> dict[str, Any]:
        fields = super().config_from(shapes)
        # The original trains with one setting for both; its hub loader leaves the predictor's off.
        return fields | {"pred_interpolate_rope": fields["interpolate_rope"]}

    def rules(self, config: Any) -> Iterator[Rule]:
        yield from super().rules(config)
        yield from under(encoder_rules(config), "teacher.", "teacher/")


class EncoderFile(VJEPA2Form):
    """An encoder without a predictor."""

    title = "V-JEPA 2 encoder alone"
    architecture = "VJEPA2Model"
    entries = {"encoder": ENCODER}
    fingerprint = (PATCHES,)
    absent = ("encoder/head.weight",)  # which flat fine-tuned files of VideoMAE have


class AttentiveProbe(VJEPA2Form):
    """A classifier on top of an encoder."""

    title = "attentive probe on a V-JEPA 2 encoder"
    architecture = "VJEPA2ForVideoClassification"
    entries = {"encoder": ENCODER, "probe": PROBE}
    fingerprint = (PATCHES, "probe/linear.weight")
    left_out = {"predictor": "VJEPA2ForVideoClassification has no predictor"}
    ours = "vjepa2."

    def config_from(self, shapes: Shapes) -> dict[str, Any]:
        return super().config_from(shapes) | {
            "num_pooler_layers": shapes.count("probe/pooler.blocks.{}.norm1.weight"),
            "num_labels": shapes["probe/linear.weight"][0],
        }

    def rules(self, config: Any) -> Iterator[Rule]:
        yield from super().rules(config)
        yield from under(pooler_rules(config), "pooler.", "probe/pooler.")
        yield from linear("classifier", "probe/linear")


class AnticipationProbe(VJEPA2Form):
    """Classifiers of the next action on top of encoder and predictor; one of actions alone has no verbs and nouns."""

    title = "anticipation probe on a V-JEPA 2 hub file"
    architecture = "VJEPA2ForActionAnticipation"
    entries = {"encoder": ENCODER, "predictor": PREDICTOR, "probe": PROBE}
    fingerprint = (PATCHES, "predictor/mask_tokens.0", "probe/action_classifier.weight")
    ours = "vjepa2."

    def config_from(self, shapes: Shapes) -> dict[str, Any]:
        verbs, nouns = (shapes.get(f"probe/{name}_classifier.weight", (0,)) for name in ("verb", "noun"))
        return super().config_from(shapes) | {
            "num_pooler_layers": shapes.count("probe/pooler.blocks.{}.norm1.weight"),
            "num_verb_labels": verbs[0],
            "num_noun_labels": nouns[0],
            "num_labels": shapes["probe/action_classifier.weight"][0],
        }

    def rules(self, config: Any) -> Iterator[Rule]:
        yield from super().rules(config)
        yield from under(pooler_rules(config), "pooler.", "probe/pooler.")
        if config.num_verb_labels:
            yield from linear("verb_classifier", "probe/verb_classifier")
            yield from linear("noun_classifier", "probe/noun_classifier")
        yield from linear("action_classifier", "probe/action_classifier")


FORMS = (
    ActionConditionedFile(),
    ActionTrainingFile(),
    HubFile(),
    PreTrainingFile(),
    EncoderFile(),
    AttentiveProbe(),
    AnticipationProbe(),
)
