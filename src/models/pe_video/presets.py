"""The published checkpoints of PE Video."""

from vidformers.models.pe_core.presets import tower_config

from ..records import Preset


PE_AV_SIZES = {
    "small": {"hidden_size": 768, "intermediate_size": 2048, "num_attention_heads": 6},
    "base": {"hidden_size": 1024, "intermediate_size": 2752, "num_attention_heads": 8},
    "large": {"hidden_size": 1792, "intermediate_size": 4800, "num_attention_heads": 14},
}


def _pe_av_preset(size: str, num_frames: int | None = None) -> Preset:
    """The video and text part of PE-AV, from the revision of a repository that perception_models itself reads."""
    name = f"pe-av-{size}" if num_frames is None else f"pe-av-{size}-{num_frames}-frame"
    return Preset(
        source=f"https://huggingface.co/facebook/{name}/resolve/perception_models/model.safetensors",
        config={
            "video_config": {
                **PE_AV_SIZES[size],
                "num_hidden_layers": 4,
                "vision_config": tower_config("PE-Core-L14-336"),
            },
            "text_config": {"num_hidden_layers": 22, "num_attention_heads": 16},
        },
        checkpoint_keys={},
        video_processor={} if num_frames is None else {"num_frames": num_frames, "do_sample_frames": True},
        architecture="PeVideoModel",
        license="apache-2.0",
    )


PRESETS = {
    **{f"pe-av-{size}": _pe_av_preset(size) for size in PE_AV_SIZES},
    **{f"pe-av-{size}-16-frame": _pe_av_preset(size, 16) for size in PE_AV_SIZES},
}
