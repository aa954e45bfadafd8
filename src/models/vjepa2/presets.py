"""The published checkpoints of V-JEPA 2."""

from typing import Any

from ..records import Preset


VJEPA2_FILES = "https://dl.fbaipublicfiles.com/vjepa2"
VJEPA2_SIZES = {
    "vitb": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
    "vitl": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
    "vith": {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16},
    "vitg": {"hidden_size": 1408, "num_hidden_layers": 40, "num_attention_heads": 22, "mlp_ratio": 48 / 11},
    "vitG": {"hidden_size": 1664, "num_hidden_layers": 48, "num_attention_heads": 26, "mlp_ratio": 64 / 13},
}
VJEPA2_1_LEVELS = {12: [2, 5, 8, 11], 24: [5, 11, 17, 23], 40: [9, 19, 29, 39], 48: [11, 23, 37, 47]}
"""The original's `hierarchical_layers` of an encoder with so many blocks."""


def _vjepa2_preset(
    file: str, crop_size: int, num_frames: int, *, probe: str | None = None, task: str = "VJEPA2Model", **config: Any
) -> Preset:
    """A V-JEPA 2 hub file with, for the probes, the head that facebookresearch/vjepa2's README lists for it."""
    size = VJEPA2_SIZES[file.split("-")[0]]
    return Preset(
        source=f"{VJEPA2_FILES}/{file}.pt",
        probe=probe and f"{VJEPA2_FILES}/evals/{probe}.pt",
        config={**size, "crop_size": crop_size, "frames_per_clip": num_frames, **config},
        # The 2025 hub loader reads `encoder`; every evaluation config and the 2026 loader read `target_encoder`.
        checkpoint_keys={"encoder": "target_encoder", "predictor": "predictor"},
        video_processor={"crop_size": crop_size},
        architecture=task,
    )


def _vjepa2_1_preset(size: str, file: str, checkpoint_key: str, **config: Any) -> Preset:
    """A V-JEPA 2.1 hub file, by the name that the hub loader has for it (facebookresearch/vjepa2 at 204698b)."""
    fields = VJEPA2_SIZES[size]
    return Preset(
        source=f"{VJEPA2_FILES}/{file}.pt",
        config={
            **fields,
            "crop_size": 384,
            "frames_per_clip": 64,
            "use_rope_interleave": True,
            "interpolate_rope": True,
            "use_modality_embeddings": True,
            "use_image_patch_embedder": True,
            "hierarchical_layers": VJEPA2_1_LEVELS[fields["num_hidden_layers"]],
            "use_context_projection": True,
            "pred_num_mask_tokens": 8,
            **config,
        },
        checkpoint_keys={"encoder": checkpoint_key, "predictor": "predictor"},
        video_processor={"crop_size": 384},
        architecture="VJEPA2Model",
    )


_DISTILLED = {"teacher_embed_dim": VJEPA2_SIZES["vitG"]["hidden_size"]}
_FOUR_LEVELS = {"num_distillation_outputs": 4, "pred_num_hidden_layers": 24}
_CLASSIFIER = {"task": "VJEPA2ForVideoClassification"}
_ANTICIPATION = {"task": "VJEPA2ForActionAnticipation", "anticipation_frames_per_second": 8}

PRESETS = {
    "vjepa2-vitl-fpc64-256": _vjepa2_preset("vitl", 256, 64),
    "vjepa2-vith-fpc64-256": _vjepa2_preset("vith", 256, 64),
    "vjepa2-vitg-fpc64-256": _vjepa2_preset("vitg", 256, 64),
    "vjepa2-vitg-fpc64-384": _vjepa2_preset("vitg-384", 384, 64),
    "vjepa2-vitl-fpc16-256-ssv2": _vjepa2_preset("vitl", 256, 16, probe="ssv2-vitl-16x2x3", **_CLASSIFIER),
    "vjepa2-vitg-fpc64-384-ssv2": _vjepa2_preset("vitg-384", 384, 64, probe="ssv2-vitg-384-64x2x3", **_CLASSIFIER),
    "vjepa2-vitl-fpc32-256-diving48": _vjepa2_preset(
        "vitl", 256, 32, probe="diving48-vitl-256", out_layers=[17, 19, 21, 23], **_CLASSIFIER
    ),
    "vjepa2-vitg-fpc32-384-diving48": _vjepa2_preset(
        "vitg-384", 384, 32, probe="diving48-vitg-384-32x4x3", out_layers=[24, 29, 34, 39], **_CLASSIFIER
    ),
    "vjepa2-vitl-fpc32-256-ek100": _vjepa2_preset("vitl", 256, 32, probe="ek100-vitl-256", **_ANTICIPATION),
    "vjepa2-vitg-fpc32-384-ek100": _vjepa2_preset("vitg-384", 384, 32, probe="ek100-vitg-384", **_ANTICIPATION),
    "vjepa2-ac-vitg-fpc64-256": Preset(
        source=f"{VJEPA2_FILES}/vjepa2-ac-vitg.pt",
        config={
            **VJEPA2_SIZES["vitg"],
            "crop_size": 256,
            "frames_per_clip": 64,
            "pred_hidden_size": 1024,
            "pred_num_hidden_layers": 24,
            "pred_num_attention_heads": 16,
        },
        checkpoint_keys={"encoder": "encoder", "predictor": "predictor"},
        video_processor={"crop_size": 256},
        architecture="VJEPA2ACModel",
    ),
    "vjepa2.1-vitb-fpc64-384": _vjepa2_1_preset("vitb", "vjepa2_1_vitb_dist_vitG_384", "ema_encoder", **_DISTILLED),
    "vjepa2.1-vitl-fpc64-384": _vjepa2_1_preset("vitl", "vjepa2_1_vitl_dist_vitG_384", "ema_encoder", **_DISTILLED),
    "vjepa2.1-vitg-fpc64-384": _vjepa2_1_preset("vitg", "vjepa2_1_vitg_384", "target_encoder", **_FOUR_LEVELS),
    "vjepa2.1-vitG-fpc64-384": _vjepa2_1_preset("vitG", "vjepa2_1_vitG_384", "target_encoder", **_FOUR_LEVELS),
}
