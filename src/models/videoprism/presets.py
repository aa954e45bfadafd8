"""The published checkpoints of VideoPrism."""

from ..records import Preset


VIDEOPRISM_FILES = "https://huggingface.co/google"
VIDEOPRISM_SIZES = {
    "base": {"hidden_size": 768, "num_attention_heads": 12, "num_spatial_layers": 12, "intermediate_size": 3072},
    "large": {"hidden_size": 1024, "num_attention_heads": 16, "num_spatial_layers": 24, "intermediate_size": 4096},
    "giant": {"hidden_size": 1408, "num_attention_heads": 16, "num_spatial_layers": 40, "intermediate_size": 6144},
}


def _videoprism_preset(size: str, num_frames: int, *, is_published: bool = True, text: dict | None = None) -> Preset:
    """A model of google-deepmind/videoprism's `models.py`; `text` for one with a text tower, and what it changes."""
    vision = {
        **VIDEOPRISM_SIZES[size],
        "num_temporal_layers": 4,
        "num_frames": num_frames,
        "image_size": 288,
        "tubelet_size": [1, 18, 18],
        "attn_logit_softcapping": 50.0,
    }
    if text is None:
        config, name = vision, f"{size}-f{num_frames}r288"
    else:
        width, heads = vision["hidden_size"], vision["num_attention_heads"]
        tower = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": heads}
        tower |= {"num_hidden_layers": 12, "vocab_size": 32000, "attn_logit_softcapping": 50.0}
        vision |= {"num_auxiliary_layers": 2, "pooler_head_dim": 4 * width // heads}
        config = {"vision_config": vision, "text_config": {**tower, **text}}
        name = f"lvt-{size}-f{num_frames}r288"
    file = f"{VIDEOPRISM_FILES}/videoprism-{name}/resolve/main/flax_{name.replace('-', '_')}_repeated.npz"
    return Preset(
        source=file if is_published else None,
        config=config,
        checkpoint_keys={},
        video_processor={"num_frames": num_frames},
        architecture="VideoPrismVisionModel" if text is None else "VideoPrismClipModel",
        license="apache-2.0" if is_published else None,
    )


PRESETS = {
    "videoprism-base-f16r288": _videoprism_preset("base", 16),
    "videoprism-large-f8r288": _videoprism_preset("large", 8),
    "videoprism-giant-f8r288": _videoprism_preset("giant", 8, is_published=False),
    "videoprism-lvt-base-f16r288": _videoprism_preset("base", 16, text={}),
    "videoprism-lvt-large-f8r288": _videoprism_preset("large", 8, text={}),
    "videoprism-lvt-giant-f8r288": _videoprism_preset(
        "giant", 8, is_published=False, text={"num_hidden_layers": 16, "norm_policy": "primer_hybrid"}
    ),
}
