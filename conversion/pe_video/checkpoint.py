"""PE-AV: files of facebookresearch/perception_models (commit 3e352cca) and the names of transformers' PE Video.

An original directory has `config.json` and `model.safetensors`, one flat state dict of the audio-video-text model in
`core/audio_visual_encoder/pe.py`. PE Video is its video and text part.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from vidformers.conversion.ops import Constant
from vidformers.conversion.pe_core.checkpoint import vision_fields, vision_rules
from vidformers.conversion.rules import Bounded, Entry, Form, Rule, Shapes, leave_out, linear, under
from vidformers.models.pe_core.presets import PE_ARCHITECTURES, PE_TOWERS


VISUAL = "audio_visual_model.visual_model"
FRAME_TOWER = f"{VISUAL}.pe_encoder."
TEMPORAL = f"{VISUAL}.visual_transformer"
MODERNBERT_LAYERS = 28
"""Layers of ModernBERT-large, the text tower of the published files, of which the original reads fewer."""
TEXT_LAYERS = ("attn.Wqkv.weight", "attn.Wo.weight", "mlp_norm.weight", "mlp.Wi.weight", "mlp.Wo.weight")


# ---------------------------------------------------------------------------------------------- what the shapes tell


def encoder_fields(shapes: Shapes) -> dict[str, Any]:
    """The fields of the video encoder, its frame tower's under `vision_config`."""
    attention = f"{TEMPORAL}.layers.0.self_attn"
    head_dim = shapes[f"{attention}.q_norm.weight"][0]
    return {
        "hidden_size": shapes[f"{VISUAL}.proj.weight"][0],
        "intermediate_size": shapes[f"{TEMPORAL}.layers.0.mlp.gate_proj.weight"][0],
        "num_hidden_layers": shapes.count(f"{TEMPORAL}.layers.{{}}.input_layernorm.weight"),
        "num_attention_heads": shapes[f"{attention}.q_proj.weight"][0] // head_dim,
        "num_key_value_heads": shapes[f"{attention}.k_proj.weight"][0] // head_dim,
        "head_dim": head_dim,
        "attention_bias": f"{attention}.q_proj.bias" in shapes,
        "vision_config": vision_fields(shapes, FRAME_TOWER),
    }


def text_fields(shapes: Shapes) -> dict[str, Any]:
    """The fields of the text tower, of which a model may have the first layers alone."""
    layers = shapes.count("text_model.layers.{}.mlp_norm.weight")
    return {
        "vocab_size": shapes["text_model.embeddings.tok_embeddings.weight"][0],
        "hidden_size": shapes["text_model.embeddings.tok_embeddings.weight"][1],
        "intermediate_size": shapes["text_model.layers.0.mlp.Wo.weight"][1],
        "num_hidden_layers": Bounded(layers, lambda given: 0 < given <= layers),
    }


def encoder_settings(visual: Mapping[str, Any]) -> dict[str, Any]:
    """What `config.json` says of the video encoder; what it leaves out are the original's defaults, which are ours."""
    temporal = visual.get("visual_transformer") or {}
    longest = temporal.get("max_position_embeddings", 10_000)
    tower = PE_TOWERS.get(visual.get("pe_encoder", "PE-Core-L14-336"))
    heads = tower and PE_ARCHITECTURES[tower]["num_attention_heads"]
    return {
        "max_position_embeddings": longest,
        "rms_norm_eps": temporal.get("rms_norm_eps", 1e-5),
        "attention_dropout": temporal.get("attention_dropout", 0.0),
        # `Transformer` computes the base from the longest sequence; its configuration's `rope_theta` is not read.
        "rope_parameters": {"rope_theta": max(10_000, 2 * longest), "rope_type": "default"},
        "vision_config": {"architecture": tower, "num_attention_heads": heads} if tower else {},
    }


def text_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What `config.json` says of the text tower."""
    text = {"num_attention_heads": 16, **dict(settings.get("text_model") or {})}
    if settings.get("nth_text_layer", 22) is not None:
        text["num_hidden_layers"] = settings.get("nth_text_layer", 22)
    for name in ("dtype", "layer_norm_eps", "model_type", "position_embedding_type", "torch_dtype"):
        text.pop(name, None)
    return text


# ------------------------------------------------------------------------------------------------------------- rules


def encoder_rules(config: Any) -> Iterator[Rule]:
    """The video encoder."""
    yield from under(vision_rules(config.vision_config), "embedder.vision_model.timm_model.", FRAME_TOWER)
    yield from linear("embedder.proj", f"{VISUAL}.proj", bias=False)
    yield from linear("embedder.data_proj", f"{VISUAL}.data_proj")
    yield Rule("patch_embedder.class_embedding", f"{TEMPORAL}.embeddings.cls_token")
    for block in ("block1", "block2"):
        for name in ("groupnorm", "project"):
            layer = f"resnet_block.{block}.{name}"
            yield from linear(f"patch_embedder.{layer}", f"{TEMPORAL}.embeddings.{layer}")
    for i in range(config.num_hidden_layers):
        yield from under(_temporal_block(config), f"layers.{i}.", f"{TEMPORAL}.layers.{i}.")
    yield from linear("norm", f"{TEMPORAL}.norm", bias=False)
    yield from linear("output", f"{TEMPORAL}.output", bias=False)


def _temporal_block(config: Any) -> Iterator[Rule]:
    for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"):
        yield from linear(name, name, bias=config.attention_bias)
    norms = ("self_attn.q_norm", "self_attn.k_norm", "input_layernorm", "post_attention_layernorm")
    for name in (*norms, "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"):
        yield from linear(name, name, bias=False)


def text_rules(config: Any) -> Iterator[Rule]:
    """The text tower; its first layer has no norm before its attention."""
    for name in ("embeddings.tok_embeddings.weight", "embeddings.norm.weight", "final_norm.weight"):
        yield Rule(name, name)
    for i in range(config.num_hidden_layers):
        for name in (*TEXT_LAYERS, *(["attn_norm.weight"] if i else [])):
            yield Rule(f"layers.{i}.{name}", f"layers.{i}.{name}")
    for i in range(config.num_hidden_layers, MODERNBERT_LAYERS):
        names = [f"layers.{i}.{name}" for name in (*TEXT_LAYERS, "attn_norm.weight")]
        yield from leave_out(names, "a layer after the one that the original takes text embeddings from")


def head_rules() -> Iterator[Rule]:
    """A norm and a projection into the space that videos and texts share."""
    yield from linear("layer_norm", "layer_norm")
    yield from linear("proj", "proj", bias=False)


# ------------------------------------------------------------------------------------------------------------- forms


class PeAvForm(Form):
    """What all files of the family have in common."""

    family = "pe_video"
    entries = {"": Entry()}
    settings_file = "config.json"
    left_out = dict.fromkeys(
        (
            "audio_visual_model.audio_model",
            "audio_visual_model.audio_visual_transformer",
            "audio_head",
            "audio_text_head",
            "audio_plus_text_head",
            "audio_visual_head",
            "audio_visual_text_head",
            "visual_plus_text_head",
        ),
        "PE Video is the model's video and text part",
    )

    def processor_settings(self, config: Any) -> dict[str, Any]:
        return {"size": getattr(config, "video_config", config).vision_config.image_size}

    def read_settings(self, settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        if "audio_visual_model" not in settings:
            return {}, {}
        visual = settings["audio_visual_model"].get("visual_model") or {}
        processor = {"num_frames": 16, "do_sample_frames": True} if visual.get("fixed_len_video") else {}
        return encoder_settings(visual), processor


class PeAvDirectory(PeAvForm):
    """The audio-video-text model, of which ours is the video and text part."""

    title = "PE-AV directory"
    architecture = "PeVideoModel"
    fingerprint = (f"{VISUAL}.proj.weight", "text_model.embeddings.tok_embeddings.weight")
    required = ("video_config.vision_config.num_attention_heads", "text_config.num_attention_heads")

    def config_from(self, shapes: Shapes) -> dict[str, Any]:
        return {
            "video_config": encoder_fields(shapes),
            "text_config": text_fields(shapes),
            "projection_dim": shapes["visual_head.proj.weight"][0],
        }

    def rules(self, config: Any) -> Iterator[Rule]:
        yield from under(encoder_rules(config.video_config), "video_encoder.")
        yield from under(head_rules(), "video_head.", "visual_head.")
        yield from under(head_rules(), "text_video_head.", "visual_text_head.")
        why = "the original compares embeddings by their dot products as they are"
        yield Rule("text_video_logit_scale", (), Constant(1.0, (1,)), why)
        yield Rule("text_video_logit_bias", (), Constant(0.0, (1,)), why)
        yield from under(text_rules(config.text_config), "text_model.", "text_model.")

    def read_settings(self, settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        encoder, processor = super().read_settings(settings)
        if not encoder:
            return {}, processor
        text = {"text_config": text_settings(settings), "normalize_text": settings.get("nth_text_layer", 22) is None}
        return {"video_config": encoder, **text}, processor


class VideoEncoder(PeAvForm):
    """The video encoder alone."""

    title = "video encoder of PE-AV alone"
    architecture = "PeVideoEncoder"
    fingerprint = (f"{VISUAL}.proj.weight",)
    required = ("vision_config.num_attention_heads",)

    def config_from(self, shapes: Shapes) -> dict[str, Any]:
        return encoder_fields(shapes)

    def rules(self, config: Any) -> Iterator[Rule]:
        yield from encoder_rules(config)


class VideoEncoderOfDirectory(VideoEncoder):
    """The video encoder of the whole model."""

    title = "video encoder of a PE-AV directory"
    on_request = True
    fingerprint = PeAvDirectory.fingerprint
    left_out = {
        **PeAvForm.left_out,
        "visual_head": "PeVideoEncoder has no heads",
        "visual_text_head": "PeVideoEncoder has no heads",
        "text_model": "PeVideoEncoder has no text tower",
    }


FORMS = (PeAvDirectory(), VideoEncoderOfDirectory(), VideoEncoder())
