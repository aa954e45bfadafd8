"""The published checkpoints of PE core, PE lang and PE spatial."""

from ..records import Preset


PE_FILES = "https://huggingface.co/facebook"
PE_SIZES = {"T": "tiny", "S": "small", "B": "base", "L": "large", "G": "gigantic"}
PE_TEXT_SMALL = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "projection_dim": 512,
}
PE_TEXT_GIGANTIC = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "max_position_embeddings": 72,
}


def _pe_preset(name: str, text: dict[str, int] | None = None) -> Preset:
    """A tower of perception_models' `core/vision_encoder/config.py`; for PE core, what its text tower changes."""
    kind, size, image_size = name.removeprefix("PE-").split("-")[:3]
    vision = {
        "architecture": f"vit_pe_{kind.lower()}_{PE_SIZES[size[0]]}_patch{size[1:]}_{image_size}",
        "num_attention_heads": {"T": 3, "S": 6, "B": 12}.get(size[0], 16),
        "image_size": int(image_size),
    }
    if text is None:
        config, architecture = vision, "PeVisionModel"
    else:
        config, architecture = {"vision_config": vision, "text_config": text}, "PeCoreModel"
    return Preset(
        source=f"{PE_FILES}/{name}/resolve/main/{name}.pt",
        config=config,
        checkpoint_keys={},
        video_processor={},
        architecture=architecture,
        license="apache-2.0",
        size_text=f"{size[0]}/{size[1:]}",
    )


PE_CORE = {
    "PE-Core-T16-384": PE_TEXT_SMALL,
    "PE-Core-S16-384": PE_TEXT_SMALL,
    "PE-Core-B16-224": {"num_attention_heads": 16},
    "PE-Core-L14-336": {"num_attention_heads": 16},
    "PE-Core-G14-448": PE_TEXT_GIGANTIC,
}
PE_TOWERS = (
    *("PE-Lang-L14-448", "PE-Lang-L14-448-Tiling", "PE-Lang-G14-448", "PE-Lang-G14-448-Tiling"),
    *("PE-Spatial-T16-512", "PE-Spatial-S16-512", "PE-Spatial-B16-512", "PE-Spatial-L14-448", "PE-Spatial-G14-448"),
)

PRESETS = {
    **{name: _pe_preset(name, text) for name, text in PE_CORE.items()},
    **{name: _pe_preset(name) for name in PE_TOWERS},
}
