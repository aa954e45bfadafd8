"""The published towers of PE core, PE lang and PE spatial: their sizes, and the files that hold them.

Sizes are those of perception_models (3e352cca), `core/vision_encoder/config.py`, under the names that timm gave them.
"""

from typing import Any

from ..records import Preset


PE_SIZES = {  # width, blocks, heads, width of the MLP
    "tiny": (192, 12, 3, 768),
    "small": (384, 12, 6, 1536),
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
    "gigantic": (1536, 50, 16, 8960),
}


def _architecture(
    size: str, patch_size: int, image_size: int, projection_dim: int = 0, layers: int | None = None, scale: float = 0.0
) -> dict[str, Any]:
    """The fields that a name stands for; `projection_dim` for a tower of PE core, which alone has pooling and norm."""
    hidden_size, num_layers, num_heads, intermediate_size = PE_SIZES[size]
    return {
        "hidden_size": hidden_size,
        "num_hidden_layers": layers or num_layers,
        "num_attention_heads": num_heads,
        "intermediate_size": intermediate_size,
        "patch_size": patch_size,
        "image_size": image_size,
        "use_cls_token": size != "gigantic",
        "use_post_norm": projection_dim > 0,
        "use_attention_pooling": projection_dim > 0,
        "projection_dim": projection_dim,
        "layer_scale_init_value": scale,
    }


PE_ARCHITECTURES: dict[str, dict[str, Any]] = {
    "vit_pe_core_tiny_patch16_384": _architecture("tiny", 16, 384, 512),
    "vit_pe_core_small_patch16_384": _architecture("small", 16, 384, 512),
    "vit_pe_core_base_patch16_224": _architecture("base", 16, 224, 1024),
    "vit_pe_core_large_patch14_336": _architecture("large", 14, 336, 1024),
    "vit_pe_core_gigantic_patch14_448": _architecture("gigantic", 14, 448, 1280),
    "vit_pe_lang_large_patch14_448": _architecture("large", 14, 448, layers=23, scale=0.1),
    "vit_pe_lang_gigantic_patch14_448": _architecture("gigantic", 14, 448, layers=47, scale=0.1),
    "vit_pe_spatial_tiny_patch16_512": _architecture("tiny", 16, 512),
    "vit_pe_spatial_small_patch16_512": _architecture("small", 16, 512),
    "vit_pe_spatial_base_patch16_512": _architecture("base", 16, 512),
    "vit_pe_spatial_large_patch14_448": _architecture("large", 14, 448),
    "vit_pe_spatial_gigantic_patch14_448": _architecture("gigantic", 14, 448, scale=0.1),
}
"""What timm's names of the towers stand for."""

PE_TOWERS = {
    "PE-Core-T16-384": "vit_pe_core_tiny_patch16_384",
    "PE-Core-S16-384": "vit_pe_core_small_patch16_384",
    "PE-Core-B16-224": "vit_pe_core_base_patch16_224",
    "PE-Core-L14-336": "vit_pe_core_large_patch14_336",
    "PE-Core-G14-448": "vit_pe_core_gigantic_patch14_448",
    "PE-Lang-L14-448": "vit_pe_lang_large_patch14_448",
    "PE-Lang-L14-448-Tiling": "vit_pe_lang_large_patch14_448",
    "PE-Lang-G14-448": "vit_pe_lang_gigantic_patch14_448",
    "PE-Lang-G14-448-Tiling": "vit_pe_lang_gigantic_patch14_448",
    "PE-Spatial-T16-512": "vit_pe_spatial_tiny_patch16_512",
    "PE-Spatial-S16-512": "vit_pe_spatial_small_patch16_512",
    "PE-Spatial-B16-512": "vit_pe_spatial_base_patch16_512",
    "PE-Spatial-L14-448": "vit_pe_spatial_large_patch14_448",
    "PE-Spatial-G14-448": "vit_pe_spatial_gigantic_patch14_448",
}
"""The architecture of every published tower."""

_SMALL_TEXT = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "projection_dim": 512,
}
_GIGANTIC_TEXT = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "max_position_embeddings": 72,
}
PE_TEXT_TOWERS = {
    "PE-Core-T16-384": _SMALL_TEXT,
    "PE-Core-S16-384": _SMALL_TEXT,
    "PE-Core-B16-224": {"num_attention_heads": 16},
    "PE-Core-L14-336": {"num_attention_heads": 16},
    "PE-Core-G14-448": _GIGANTIC_TEXT,
}
"""What the text tower of a PE core model has otherwise than `PeCoreTextConfig`; the heads always."""


def tower_config(name: str, *further: str) -> dict[str, Any]:
    """What no tensor of a published tower says of it.

    Args:
        name: a key of `PE_TOWERS`.
        *further: more fields to give.

    Returns:
        Fields of `PeVisionConfig`: the architecture, the number of heads, and those asked for.
    """
    architecture = PE_TOWERS[name]
    fields = PE_ARCHITECTURES[architecture]
    return {"architecture": architecture, **{key: fields[key] for key in ("num_attention_heads", *further)}}


def _pe_preset(name: str) -> Preset:
    """A file of perception_models: a model of images and texts, or a vision tower alone."""
    vision, text = tower_config(name, "image_size"), PE_TEXT_TOWERS.get(name)
    return Preset(
        source=f"https://huggingface.co/facebook/{name}/resolve/main/{name}.pt",
        config=vision if text is None else {"vision_config": vision, "text_config": dict(text)},
        checkpoint_keys={},
        video_processor={},
        architecture="PeVisionModel" if text is None else "PeCoreModel",
        license="apache-2.0",
    )


PRESETS = {name: _pe_preset(name) for name in PE_TOWERS}
