"""VideoMAE: files of MCG-NJU/VideoMAE (commit 14ef8d85) and the names of transformers.

Those of OpenGVLab/VideoMAEv2 (commit 29eab1e8) have the same names. Its directories on the Hub, which bring code of
their own, hold the encoder of a fine-tuned file alone, under `model.`.

A file of pre-training holds an encoder and a decoder (`modeling_pretrain.py`). One of fine-tuning holds the encoder
under bare names, and a head (`modeling_finetune.py`). `utils.py` saves either as the entry `model`, DeepSpeed as
`module`. Tables of sines and cosines are not saved; a learned table is.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from vidformers.conversion.ops import Split
from vidformers.conversion.rules import Bounded, Entry, Form, Rule, Shapes, leave_out, linear, under
from vidformers.models.videomae.configuration_videomae import is_of_remote_code, remote_fields


NO_CLASSIFIER = "the classifier, which an encoder does not have"


# ------------------------------------------------------------------------------------------------------------- rules


def _encoder(config: Any, has_norm: bool) -> Iterator[Rule]:
    yield from linear("embeddings.patch_embeddings.projection", "patch_embed.proj")
    if config.use_learnable_pos_emb:
        yield Rule("embeddings.position_embeddings.table", "pos_embed")
    for i in range(config.num_hidden_layers):
        yield from under(_block(config), f"encoder.layer.{i}.", f"blocks.{i}.")
    if has_norm:
        yield from linear("layernorm", "norm")


def _block(config: Any) -> Iterator[Rule]:
    projections = [f"attention.attention.{name}.weight" for name in ("query", "key", "value")]
    yield from linear("layernorm_before", "norm1")
    yield Rule(projections, "attn.qkv.weight", Split(3), "one layer computes queries, keys and values")
    if config.qv_bias:
        yield Rule("attention.attention.q_bias", "attn.q_bias")
        yield Rule("attention.attention.v_bias", "attn.v_bias")
    if config.cos_attn:
        yield Rule("attention.attention.scale", "attn.scale")
    yield from linear("attention.output.dense", "attn.proj")
    yield from linear("layernorm_after", "norm2")
    yield from linear("intermediate.dense", "mlp.fc1")
    yield from linear("output.dense", "mlp.fc2")
    if config.layer_scale_init_value:
        yield Rule("lambda_1", "gamma_1")
        yield Rule("lambda_2", "gamma_2")


def _decoder(config: Any) -> Iterator[Rule]:
    yield Rule("encoder_to_decoder.weight", "encoder_to_decoder.weight")  # The layer has no bias.
    yield Rule("mask_token", "mask_token")
    for i in range(config.decoder_num_hidden_layers):
        yield from under(_block(config), f"decoder.decoder_layers.{i}.", f"decoder.blocks.{i}.")
    yield from linear("decoder.norm", "decoder.norm")
    yield from linear("decoder.head", "decoder.head")


# ------------------------------------------------------------------------------------------------------------- forms


class _VideoMAEForm(Form):
    """What all files have in common.

    The number of heads leaves no trace in a file unless each has a factor (`cos_attn`), that of frames and pixels none
    unless positions are learned.
    """

    family = "videomae"
    entries = {"": Entry(("model", "module", ""), versions=("model_ema",))}
    required = ("num_attention_heads", "image_size", "num_frames")
    label_rows = ("head.weight", "head.bias")
    ours, theirs = "videomae.", ""  # what the names of the encoder's tensors begin with

    def config_from(self, shapes: Shapes) -> dict[str, Any]:
        width, channels, tubelet, *patch = shapes[f"{self.theirs}patch_embed.proj.weight"]
        patch_size, block = patch[0] if patch[0] == patch[1] else patch, f"{self.theirs}blocks.0"
        has_scales, has_factors = f"{block}.attn.scale" in shapes, f"{block}.gamma_1" in shapes
        return {
            "cos_attn": has_scales,
            **({"num_attention_heads": shapes[f"{block}.attn.scale"][0]} if has_scales else {}),
            "hidden_size": width,
            "num_channels": channels,
            "tubelet_size": tubelet,
            "patch_size": Bounded(patch_size, lambda given: given == patch_size or given in (patch, tuple(patch))),
            "num_hidden_layers": shapes.count(f"{self.theirs}blocks.{{}}.norm1.weight"),
            "intermediate_size": shapes[f"{block}.mlp.fc1.weight"][0],
            "qv_bias": f"{block}.attn.q_bias" in shapes,
            "use_learnable_pos_emb": f"{self.theirs}pos_embed" in shapes,
            # Where the factors began matters to new models alone.
            "layer_scale_init_value": Bounded(0.1 if has_factors else 0.0, lambda given: bool(given) == has_factors),
        }

    def rules(self, config: Any) -> Iterator[Rule]:
        yield from under(_encoder(config, has_norm=not config.use_mean_pooling), self.ours, self.theirs)

    def processor_settings(self, config: Any) -> dict[str, Any]:
        return {"crop_size": config.image_size, "num_frames": config.num_frames}


class _EncoderOfPretrainingForm(_VideoMAEForm):
    title = "encoder of a VideoMAE pre-training file"
    architecture = "VideoMAEModel"
    on_request = True
    fingerprint = ("encoder_to_decoder.weight",)
    label_rows = ()
    ours, theirs = "", "encoder."

    def config_from(self, shapes: Shapes) -> dict[str, Any]:
        has_norm = "encoder.norm.weight" in shapes
        return super().config_from(shapes) | {
            # Where the decoder is left out, its depth is all that is to be known of it.
            "decoder_num_hidden_layers": shapes.count("decoder.blocks.{}.norm1.weight"),
            "use_mean_pooling": Bounded(not has_norm),
            "use_pretraining_norm": Bounded(has_norm),
        }

    def rules(self, config: Any) -> Iterator[Rule]:
        yield from super().rules(config)
        if config.use_mean_pooling:
            norm = ("encoder.norm.weight", "encoder.norm.bias")
            yield from leave_out(norm, "the norm of the tokens; with `use_mean_pooling` their mean has one instead")
        yield from leave_out(_decoder(config), "the decoder, which pre-training alone uses")


class _ClassifierOfPretrainingForm(_EncoderOfPretrainingForm):
    title = "VideoMAE pre-training file, for a classifier to fine-tune"
    architecture = "VideoMAEForVideoClassification"
    required = (*_VideoMAEForm.required, "num_labels")
    new_modules = ("fc_norm", "classifier")
    ours = "videomae."

    def config_from(self, shapes: Shapes) -> dict[str, Any]:
        # The original fine-tunes so; the norm of pre-training is of no use then.
        return super().config_from(shapes) | {"use_mean_pooling": Bounded(True), "use_pretraining_norm": Bounded(True)}


class _PretrainingForm(_EncoderOfPretrainingForm):
    title = "VideoMAE pre-training file"
    architecture = "VideoMAEForPreTraining"
    on_request = False
    required = (*_VideoMAEForm.required, "decoder_num_attention_heads")
    ours = "videomae."

    def config_from(self, shapes: Shapes) -> dict[str, Any]:
        scale = shapes.get("decoder.blocks.0.attn.scale")
        return super().config_from(shapes) | {
            **({"decoder_num_attention_heads": scale[0]} if scale else {}),
            "decoder_hidden_size": shapes["mask_token"][2],
            "decoder_intermediate_size": shapes["decoder.blocks.0.mlp.fc1.weight"][0],
        }

    def rules(self, config: Any) -> Iterator[Rule]:
        # transformers trains without the norm where its configuration says `use_mean_pooling`.
        has_norm = config.use_pretraining_norm or not config.use_mean_pooling
        yield from under(_encoder(config, has_norm), self.ours, self.theirs)
        yield from _decoder(config)


class _FinetunedForm(_VideoMAEForm):
    title = "VideoMAE fine-tuned file"
    architecture = "VideoMAEForVideoClassification"
    fingerprint = ("patch_embed.proj.weight", "head.weight")

    def config_from(self, shapes: Shapes) -> dict[str, Any]:
        fields = {"use_mean_pooling": "norm.weight" not in shapes, "num_labels": shapes["head.weight"][0]}
        return super().config_from(shapes) | fields

    def rules(self, config: Any) -> Iterator[Rule]:
        yield from super().rules(config)
        if config.use_mean_pooling:
            yield from linear("fc_norm", "fc_norm")
        yield from linear("classifier", "head")


class _EncoderOfFinetunedForm(_VideoMAEForm):
    title = "encoder of a VideoMAE fine-tuned file"
    architecture = "VideoMAEModel"
    on_request = True
    fingerprint = ("patch_embed.proj.weight",)
    ours = ""

    def config_from(self, shapes: Shapes) -> dict[str, Any]:
        return super().config_from(shapes) | {"use_mean_pooling": "norm.weight" not in shapes}

    def rules(self, config: Any) -> Iterator[Rule]:
        yield from super().rules(config)
        norm = linear("fc_norm", "fc_norm") if config.use_mean_pooling else ()
        yield from norm if config.use_pooler else leave_out(norm, NO_CLASSIFIER)
        yield from leave_out(linear("classifier", "head"), NO_CLASSIFIER)


class _HubForm(_VideoMAEForm):
    """A directory OpenGVLab/VideoMAEv2-*; its settings contradict its tensors on `use_mean_pooling` now and then."""

    title = "VideoMAE V2 Hub directory"
    architecture = "VideoMAEModel"
    fingerprint = ("model.patch_embed.proj.weight", "model.blocks.0.attn.qkv.weight")
    entries = {"": Entry()}
    settings_file = "config.json"
    label_rows = ()
    ours, theirs = "", "model."

    def config_from(self, shapes: Shapes) -> dict[str, Any]:
        has_norm = "model.norm.weight" in shapes
        return super().config_from(shapes) | {"use_mean_pooling": not has_norm, "use_pooler": True}

    def read_settings(self, settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        fields = remote_fields(settings["model_config"]) if is_of_remote_code(settings) else {}
        return {name: value for name, value in fields.items() if name != "use_mean_pooling"}, {}

    def rules(self, config: Any) -> Iterator[Rule]:
        if config.use_pooler:  # Without, it is another form's encoder.
            yield from self._rules(config)

    def _rules(self, config: Any) -> Iterator[Rule]:
        yield from super().rules(config)
        if config.use_mean_pooling:
            yield from linear("fc_norm", "model.fc_norm")


class _ClassifierOfHubForm(_HubForm):
    title = "VideoMAE V2 Hub directory, for a classifier to fine-tune"
    architecture = "VideoMAEForVideoClassification"
    on_request = True
    required = (*_VideoMAEForm.required, "num_labels")
    new_modules = ("classifier",)
    ours = "videomae."

    def config_from(self, shapes: Shapes) -> dict[str, Any]:
        return super().config_from(shapes) | {"use_pooler": False}

    def rules(self, config: Any) -> Iterator[Rule]:
        yield from self._rules(config)


FORMS = (
    _PretrainingForm(),
    _FinetunedForm(),
    _HubForm(),
    _ClassifierOfPretrainingForm(),
    _ClassifierOfHubForm(),
    _EncoderOfFinetunedForm(),
    _EncoderOfPretrainingForm(),
)
