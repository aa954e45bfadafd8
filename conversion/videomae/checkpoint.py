"""VideoMAE: files of MCG-NJU/VideoMAE (commit 14ef8d85) and the names of transformers 5.23.

A file of pre-training holds encoder and decoder, one of fine-tuning the encoder under bare names and a head
(`modeling_pretrain.py`, `modeling_finetune.py`). `utils.py` saves either as the entry `model`, DeepSpeed as `module`.
Tables of sines and cosines are not saved; a learned table is.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vidformers.conversion.core import (
    Axis,
    Count,
    FamilyMap,
    Layout,
    Part,
    Present,
    Reader,
    Rule,
    Shapes,
    Split,
    drop,
    linear,
    rule,
)


# ----------------------------------------------------------------------------------------------------------- readers


@dataclass(frozen=True)
class PatchSize(Reader):
    """`patch_size`, one number for squares."""

    tensor: str

    def read(self, shapes: Shapes) -> int | list[int]:
        height, width = shapes[self.tensor][3:]
        return height if height == width else [height, width]

    def agrees(self, given: Any, shapes: Shapes) -> bool:
        return ([given, given] if isinstance(given, int) else list(given)) == [*shapes[self.tensor][3:]]


@dataclass(frozen=True)
class LayerScale(Reader):
    """`layer_scale_init_value`: the presence of factors. Where they began matters to new models alone."""

    tensor: str

    def read(self, shapes: Shapes) -> float:
        return 0.1 if self.tensor in shapes else 0.0

    def agrees(self, given: float, shapes: Shapes) -> bool:
        return (given > 0) == (self.tensor in shapes)


@dataclass(frozen=True)
class Pooling(Reader):
    """`use_mean_pooling`: without it there is a norm of the encoder's tokens."""

    tensor: str = "norm.weight"

    def read(self, shapes: Shapes) -> bool:
        return self.tensor not in shapes


@dataclass(frozen=True)
class Suggested(Reader):
    """What tensors suggest of a field that may as well be otherwise."""

    reader: Reader

    @property
    def tensor(self) -> str:
        return self.reader.tensor

    def read(self, shapes: Shapes) -> Any:
        return self.reader.read(shapes)

    def agrees(self, given: Any, shapes: Shapes) -> bool:
        return True


def _encoder_fields(prefix: str) -> dict[str, Reader]:
    return {
        "hidden_size": Axis(f"{prefix}patch_embed.proj.weight", 0),
        "num_channels": Axis(f"{prefix}patch_embed.proj.weight", 1),
        "tubelet_size": Axis(f"{prefix}patch_embed.proj.weight", 2),
        "patch_size": PatchSize(f"{prefix}patch_embed.proj.weight"),
        "num_hidden_layers": Count(f"{prefix}blocks.{{i}}.norm1.weight"),
        "intermediate_size": Axis(f"{prefix}blocks.0.mlp.fc1.weight", 0),
        "qv_bias": Present(f"{prefix}blocks.0.attn.q_bias"),
        "layer_scale_init_value": LayerScale(f"{prefix}blocks.0.gamma_1"),
        "use_learnable_pos_emb": Present(f"{prefix}pos_embed"),
    }


DECODER_FIELDS = {
    "decoder_hidden_size": Axis("mask_token", 2),
    "decoder_num_hidden_layers": Count("decoder.blocks.{i}.norm1.weight"),
    "decoder_intermediate_size": Axis("decoder.blocks.0.mlp.fc1.weight", 0),
}
# The number of heads leaves no trace; that of frames and pixels none unless positions are learned.
REQUIRED = ("num_attention_heads", "image_size", "num_frames")


# ------------------------------------------------------------------------------------------------------------- rules

LAYERS = {
    "layernorm_before": "norm1",
    "attention.output.dense": "attn.proj",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}


def _blocks(target: str, source: str, repeat: str) -> tuple[Rule, ...]:
    """The rules of the blocks `target.{i}`."""
    target, source = f"{target}.{{i}}", f"{source}.{{i}}"
    layers = (linear(f"{target}.{ours}", f"{source}.{theirs}", repeat=repeat) for ours, theirs in LAYERS.items())
    attention = f"{target}.attention.attention"
    projections = tuple(f"{attention}.{name}.weight" for name in ("query", "key", "value"))
    return (
        *(entry for pair in layers for entry in pair),
        rule(projections, f"{source}.attn.qkv.weight", Split(3), repeat=repeat),
        rule(f"{attention}.q_bias", f"{source}.attn.q_bias", repeat=repeat, when="qv_bias"),
        rule(f"{attention}.v_bias", f"{source}.attn.v_bias", repeat=repeat, when="qv_bias"),
        rule(f"{target}.lambda_1", f"{source}.gamma_1", repeat=repeat, when="layer_scale_init_value"),
        rule(f"{target}.lambda_2", f"{source}.gamma_2", repeat=repeat, when="layer_scale_init_value"),
    )


def _encoder(target: str, source: str) -> tuple[Rule, ...]:
    return (
        *linear(f"{target}embeddings.patch_embeddings.projection", f"{source}patch_embed.proj"),
        rule(f"{target}embeddings.position_embeddings.table", f"{source}pos_embed", when="use_learnable_pos_emb"),
        *_blocks(f"{target}encoder.layer", f"{source}blocks", "num_hidden_layers"),
    )


def _norm(target: str, source: str) -> tuple[Rule, ...]:
    """The norm of the encoder's tokens, which a model that pools them first doesn't have."""
    return linear(f"{target}layernorm", f"{source}norm", unless="use_mean_pooling")


def _dropped(rules: Iterable[Rule], reason: str) -> tuple[Rule, ...]:
    """Rules that leave out what `rules` read."""
    return tuple(drop(source, reason, repeat=entry.repeat) for entry in rules for source in entry.sources)


DECODER = (
    *linear("encoder_to_decoder", "encoder_to_decoder")[:1],
    rule("mask_token", "mask_token"),
    *_blocks("decoder.decoder_layers", "decoder.blocks", "decoder_num_hidden_layers"),
    *linear("decoder.norm", "decoder.norm"),
    *linear("decoder.head", "decoder.head"),
)
HEAD = (
    *linear("fc_norm", "fc_norm", when="use_mean_pooling"),
    *linear("classifier", "head"),
)


# ------------------------------------------------------------------------------------------------------------- parts

ENTRIES = {"entries": ("model", "model_ema", ""), "spellings": ("module",)}
NO_DECODER = "the decoder, which pre-training alone uses"
POOLED = "the norm of the tokens; with `use_mean_pooling` their mean is normalised instead"


def _pretrained_encoder(target: str) -> tuple[Rule, ...]:
    return (
        *_encoder(target, "encoder."),
        *_norm(target, "encoder."),
        *(drop(f"encoder.norm.{leaf}", POOLED, when="use_mean_pooling") for leaf in ("weight", "bias")),
        *_dropped(DECODER, NO_DECODER),
    )


PRETRAINED_FIELDS = {**_encoder_fields("encoder."), **DECODER_FIELDS}
PRETRAINING = Part(
    **ENTRIES,
    rules=(
        *_encoder("videomae.", "encoder."),
        *linear("videomae.layernorm", "encoder.norm", when="use_pretraining_norm"),
        # transformers trains without this norm where its configuration says `use_mean_pooling`.
        *linear("videomae.layernorm", "encoder.norm", when=("use_pretraining_norm", False), unless="use_mean_pooling"),
        *DECODER,
    ),
    fields={
        **PRETRAINED_FIELDS,
        "use_mean_pooling": Suggested(Pooling("encoder.norm.weight")),
        "use_pretraining_norm": Suggested(Present("encoder.norm.weight")),
    },
    required=(*REQUIRED, "decoder_num_attention_heads"),
)
FINETUNED = Part(
    **ENTRIES,
    rules=(*_encoder("videomae.", ""), *_norm("videomae.", ""), *HEAD),
    fields={**_encoder_fields(""), "use_mean_pooling": Pooling(), "num_labels": Axis("head.weight", 0)},
    required=REQUIRED,
)
PRETRAINED_CLASSIFIER = Part(
    **ENTRIES,
    rules=_pretrained_encoder("videomae."),
    # No bare norm in files of pre-training: a classifier pools unless it is asked not to.
    fields={**PRETRAINED_FIELDS, "use_mean_pooling": Suggested(Pooling())},
    required=(*REQUIRED, "num_labels"),
)
PRETRAINED_ENCODER = Part(
    **ENTRIES,
    rules=_pretrained_encoder(""),
    fields={**PRETRAINED_FIELDS, "use_mean_pooling": Suggested(Pooling("encoder.norm.weight"))},
    required=REQUIRED,
)
FINETUNED_ENCODER = Part(
    **ENTRIES,
    rules=(*_encoder("", ""), *_norm("", ""), *_dropped(HEAD, "the classifier")),
    fields={**_encoder_fields(""), "use_mean_pooling": Pooling()},
    required=REQUIRED,
)

MAP = FamilyMap(
    parts={
        "pre-training model": PRETRAINING,
        "classifier": FINETUNED,
        "fine-tuned encoder": FINETUNED_ENCODER,
        "pre-trained encoder": PRETRAINED_ENCODER,
        "pre-trained encoder of a classifier": PRETRAINED_CLASSIFIER,
    },
    layouts=(
        Layout("VideoMAEForPreTraining", {"pre-training model": ""}, images=""),
        Layout("VideoMAEForVideoClassification", {"classifier": ""}, images=""),
        Layout(
            "VideoMAEForVideoClassification",
            {"pre-trained encoder of a classifier": ""},
            images="",
            on_request=True,
            initialised=("fc_norm", "classifier"),
        ),
        Layout("VideoMAEModel", {"fine-tuned encoder": ""}, images="", on_request=True),
        Layout("VideoMAEModel", {"pre-trained encoder": ""}, images="", on_request=True),
    ),
    left_out={
        "optimizer": "state of the optimiser",
        "scaler": "state of the gradient scaler",
        "lr_scheduler": "state of the learning rate's schedule",
    },
    required=(),
    processor={"crop_size": "image_size", "num_frames": "num_frames"},
)
