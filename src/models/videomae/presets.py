"""The published checkpoints of VideoMAE and VideoMAE V2."""

from dataclasses import replace

from ..records import Preset


VIDEOMAE_SIZES = {  # width, blocks, heads; the same of the decoder
    "small": (384, 12, 6, 192, 4, 3),
    "base": (768, 12, 12, 384, 4, 6),
    "large": (1024, 24, 16, 512, 12, 8),
    "huge": (1280, 32, 16, 640, 12, 8),
}
VIDEOMAE_LABELS = {"k400": 400, "ssv2": 174, "ucf101": 101}
VIDEOMAE_FILES = {  # Google Drive's name of the file, and the repository of the Hub with what transformers made of it
    "videomae-small-k400-1600e": ("1nU-H1u3eJ-VuyCveU7v-WIOcAVxs5Hww", None),
    "videomae-small-k400-1600e-finetuned": ("1ygjLRm1kvs9mwGsP3lLxUExhRo6TWnrx", "videomae-small-finetuned-kinetics"),
    "videomae-base-k400-800e": ("1JfrhN144Hdg7we213H1WxwR3lGYOlmIn", "videomae-base-short"),
    "videomae-base-k400-800e-finetuned": (
        "18EEgdXY9347yK3Yb28O-GxFMbk41F6Ne",
        "videomae-base-short-finetuned-kinetics",
    ),
    "videomae-base-k400-1600e": ("1tEhLyskjb755TJ65ptsrafUG2llSwQE1", "videomae-base"),
    "videomae-base-k400-1600e-finetuned": ("1MzwteHH-1yuMnFb8vRBQDvngV1Zl-d3z", "videomae-base-finetuned-kinetics"),
    "videomae-large-k400-1600e": ("1qLOXWb_MGEvaI7tvuAe94CV7S2HXRwT3", "videomae-large"),
    "videomae-large-k400-1600e-finetuned": ("1jX1CiqxSkCfc94y8FRW1YGHy-GNvHCuD", "videomae-large-finetuned-kinetics"),
    "videomae-huge-k400-1600e": ("1AJQR1Rsi2N1pDn9tLyJ8DQrUREiBA1bO", None),
    "videomae-huge-k400-1600e-finetuned": ("104ouJZxSVPSAm0LwJXd6IzjdA_RGLqZi", "videomae-huge-finetuned-kinetics"),
    "videomae-small-ssv2-2400e": ("1p_I1aaONOeUvRmRQw1UT3-L2H8XJClHu", None),
    "videomae-small-ssv2-2400e-finetuned": ("1ajlMrT06jiiM-5YjNI2X_UFyzsuYbbtZ", "videomae-small-finetuned-ssv2"),
    "videomae-base-ssv2-800e": ("181hLvyrrPW2IOGA46fkxdJk0tNLIgdB2", "videomae-base-short-ssv2"),
    "videomae-base-ssv2-800e-finetuned": ("1xZCiaPF4w7lYmLt5o1D5tIZyDdLtJAvH", "videomae-base-short-finetuned-ssv2"),
    "videomae-base-ssv2-2400e": ("1I18dY_7rSalGL8fPWV82c0-foRUDzJJk", "videomae-base-ssv2"),
    "videomae-base-ssv2-2400e-finetuned": ("1dt_59tBIyzdZd5Ecr22lTtzs_64MOZkT", "videomae-base-finetuned-ssv2"),
    "videomae-base-ucf101-3200e": ("1BHev4meNgKM0o_8DMRbuzAsKSP3IpQ3o", None),
    "videomae-base-ucf101-3200e-finetuned": ("1MSyon6fPpKz7oqD6WDGPFK4k_Rbyb6fw", None),
}


def _videomae_preset(size: str, data: str, is_finetuned: bool, file: str, hub: str | None) -> Preset:
    """A file of MCG-NJU/VideoMAE's MODEL_ZOO.md.

    What is on the Hub of the small models says 16 heads in place of 6, if it is as transformers' script made it.
    """
    fields = ("hidden_size", "num_hidden_layers", "num_attention_heads")
    config = dict(zip([*fields, *(f"decoder_{field}" for field in fields)], VIDEOMAE_SIZES[size], strict=True))
    for prefix in ("", "decoder_"):
        config[f"{prefix}intermediate_size"] = 4 * config[f"{prefix}hidden_size"]
    config |= {"image_size": 224, "num_frames": 16}
    return Preset(
        source=f"https://drive.google.com/file/d/{file}",
        config=config | ({"num_labels": VIDEOMAE_LABELS[data]} if is_finetuned else {}),
        checkpoint_keys={},
        video_processor={},
        architecture="VideoMAEForVideoClassification" if is_finetuned else "VideoMAEForPreTraining",
        license="cc-by-nc-4.0",
        hub=hub and f"MCG-NJU/{hub}",
    )


V2_SIZES = {  # width, blocks, heads, width of the MLP; the same of the decoder
    "small": (384, 12, 6, 1536, 192, 4, 3, 768),
    "base": (768, 12, 12, 3072, 384, 4, 6, 1536),
    "large": (1024, 24, 16, 4096, 512, 4, 8, 2048),
    "huge": (1280, 32, 16, 5120, 512, 4, 8, 2048),
    "giant": (1408, 40, 16, 6144, 512, 4, 8, 2234),
}
V2_MODEL_ZOO = "https://github.com/OpenGVLab/VideoMAEv2/blob/29eab1e8/docs/MODEL_ZOO.md"
"""A form there leads to the files of the giant model."""
V2_HUB = "https://huggingface.co/OpenGVLab"


def _v2_preset(size: str, architecture: str, source: str | None, num_labels: int | None = None) -> Preset:
    """A file of OpenGVLab/VideoMAEv2.

    Of the files behind the form nobody states a license; repositories of the Hub with others do.
    """
    fields = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    config = dict(zip([*fields, *(f"decoder_{field}" for field in fields)], V2_SIZES[size], strict=True))
    config |= {"patch_size": 14 if size == "giant" else 16, "image_size": 224, "num_frames": 16}
    return Preset(
        source=source,
        config=config | ({"num_labels": num_labels} if num_labels else {}),
        checkpoint_keys={},
        video_processor={},
        architecture=architecture,
        license="cc-by-nc-4.0" if source and source.startswith(V2_HUB) else None,
    )


def _v2_presets() -> dict[str, Preset]:
    """What is published of VideoMAE V2, and its sizes for files of one's own pre-training."""
    classifier, pretraining = "VideoMAEForVideoClassification", "VideoMAEForPreTraining"
    presets = {
        f"videomae-v2-{size}": _v2_preset(size, pretraining, None) for size in ("small", "base", "large", "huge")
    }
    giant = "videomae-v2-giant-hybrid-1200e"
    presets[giant] = _v2_preset("giant", pretraining, V2_MODEL_ZOO)
    of_giant = {"k710": 710, "k400": 400, "k710-k400": 400, "k710-k600": 600, "k710-ucf101": 101, "k710-hmdb51": 51}
    for data, num_labels in of_giant.items():
        presets[f"{giant}-{data}-finetuned"] = _v2_preset("giant", classifier, V2_MODEL_ZOO, num_labels)
    ssv2 = f"{V2_HUB}/InternVideoMAE_models/resolve/main/mae-g/vit_g_hybrid_pt_1200e_ssv2_ft.pth"
    presets[f"{giant}-ssv2-finetuned"] = _v2_preset("giant", classifier, ssv2, 174)
    for size in ("small", "base"):
        file = f"{V2_HUB}/VideoMAE2/resolve/main/distill/vit_{size[0]}_k710_dl_from_giant.pth"
        presets[f"videomae-v2-{size}-k710-distilled-from-giant"] = _v2_preset(size, classifier, file, 710)
    for size, name in (("base", "Base"), ("large", "Large"), ("huge", "Huge"), ("giant", "giant")):
        preset = _v2_preset(size, "VideoMAEModel", f"{V2_HUB}/VideoMAEv2-{name}/resolve/main/model.safetensors")
        presets[f"videomae-v2-{size}-encoder"] = replace(preset, config={**preset.config, "use_pooler": True})
    return presets


PRESETS = {
    name: _videomae_preset(*name.split("-")[1:3], name.endswith("-finetuned"), *where)
    for name, where in VIDEOMAE_FILES.items()
} | _v2_presets()
