"""One record per model family: its classes, and the published checkpoints that it can convert.

Only names and numbers stand here, so that importing this module loads no model code.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Preset:
    """A published original checkpoint and what its tensors do not say.

    Attributes:
        source: URL of the original file; `None` where it is not known, and the family's page says who names it.
        config: configuration fields that differ from the family's defaults.
        checkpoint_keys: for each part of the model, the entry of the original file that holds its tensors.
        video_processor: arguments of the family's video processor.
        probe: URL of the classifier head that belongs on top, or `None`.
        architecture: name of the model class that the converted directory holds.
        license: licence identifier of the repository that publishes the weights, `None` where nobody does.
        hub: repository of the Hub with what transformers made of the same file, where there is one.
        size_text: how `vidformers list` writes the size of the model, where not as the family says.
        input_text: how it writes the input, likewise.
    """

    source: str | None
    config: Mapping[str, Any]
    checkpoint_keys: Mapping[str, str]
    video_processor: Mapping[str, Any]
    architecture: str
    probe: str | None = None
    license: str | None = "mit"
    hub: str | None = None
    size_text: str | None = None
    input_text: str | None = None


@dataclass(frozen=True)
class Part:
    """A part of a family that has a configuration of its own, and with it an entry in the Auto classes.

    Attributes:
        model_type: `config.model_type`.
        config_class: name of the configuration class.
        auto_models: model class for each Auto class that serves the part.
        input: "videos", "images" or "text", what the part takes first.
        image_processor_class: name of the image processor class, or `None` for a part that takes no images.
        tokenizer_class: name of the tokenizer class, or `None` for a part without text.
        processor_class: name of the class that joins its processors, or `None` for a part with one of them.
    """

    model_type: str
    config_class: str
    auto_models: Mapping[str, str]
    input: str = "videos"
    image_processor_class: str | None = None
    tokenizer_class: str | None = None
    processor_class: str | None = None


@dataclass(frozen=True)
class Family:
    """A model family: the names under which its parts are found in `vidformers` and in the Auto classes.

    Attributes:
        model_type: `config.model_type`, also the name of the folder in `vidformers.models`.
        title: the family's name in prose.
        config_class: name of the configuration class.
        auto_models: model class for each Auto class that serves the family.
        video_processor_class: name of the video processor class.
        image_processor_classes: names of the class that takes videos as lists of images, its own first, then older
            ones; empty for a family without one.
        shared_processors: names of processor classes that directories of other families carry as well as this one's;
            the configuration of a directory says whose it is.
        contained_in: values of `config.model_type` of larger models that transformers has, with the name of the class
            that reads its part of their directories.
        size_text: how `vidformers list` writes the size of a preset's model, from fields of its configuration or,
            where there is one, of its `vision_config`.
        input_text: how it writes the input, likewise.
        other_models: model classes that no Auto class covers.
        model_modules: for classes outside the modules that are named after the family, such as
            `modeling_<model_type>.py`, the module that defines them.
        functions: public functions of the family, with the module that defines each.
        key_prefixes: wrappers that original training code puts before every tensor name, outermost first.
        presets: published checkpoints by name.
        paper: the paper's address.
        parts: towers that are models by themselves, with configurations of their own.
        tokenizer_class: name of the tokenizer class, or `None` for a family without one of its own.
        processor_class: name of the class that joins tokenizer and video processor, or `None`.
    """

    model_type: str
    title: str
    config_class: str
    auto_models: Mapping[str, str]
    video_processor_class: str
    other_models: tuple[str, ...] = ()
    model_modules: Mapping[str, str] = field(default_factory=dict)
    functions: Mapping[str, str] = field(default_factory=dict)
    key_prefixes: tuple[str, ...] = ()
    presets: Mapping[str, Preset] = field(default_factory=dict)
    paper: str = ""
    parts: tuple[Part, ...] = ()
    tokenizer_class: str | None = None
    processor_class: str | None = None
    image_processor_classes: tuple[str, ...] = ()
    shared_processors: tuple[str, ...] = ()
    contained_in: Mapping[str, str] = field(default_factory=dict)
    size_text: str = "{num_hidden_layers} × {hidden_size}"
    input_text: str = "{frames_per_clip} × {crop_size}²"

    @property
    def model_classes(self) -> tuple[str, ...]:
        """Names of all model classes of the family, each once."""
        of_parts = [name for part in self.parts for name in part.auto_models.values()]
        return tuple(dict.fromkeys([*self.auto_models.values(), *of_parts, *self.other_models]))

    @property
    def image_processor_class(self) -> str | None:
        """Name of the class that takes videos as lists of images, if there is one."""
        return next(iter(self.image_processor_classes), None)

    @property
    def model_types(self) -> tuple[str, ...]:
        """Values of `config.model_type` that the family's configurations have, its own first."""
        return (self.model_type, *(part.model_type for part in self.parts))

    def describe(self, preset: str) -> tuple[str, str]:
        """Size of a preset's model and of its input, as `vidformers list` writes them."""
        entry = self.presets[preset]
        fields = entry.config.get("vision_config", entry.config)
        texts = entry.size_text or self.size_text, entry.input_text or self.input_text
        return texts[0].format_map(fields), texts[1].format_map(fields)

    def record(self, model_type: str) -> "Family | Part":
        """What is entered under a `config.model_type`: the family itself or a part of it."""
        return next(entry for entry in (self, *self.parts) if entry.model_type == model_type)

    @property
    def config_classes(self) -> tuple[str, ...]:
        """Names of all configuration classes of the family, its own first."""
        return (self.config_class, *(part.config_class for part in self.parts))


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


def _vjepa2_1_preset(size: str, checkpoint_key: str, **config: Any) -> Preset:
    """A V-JEPA 2.1 hub file. Its address is not part of the code that these records were made from."""
    fields = VJEPA2_SIZES[size]
    return Preset(
        source=None,
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

VJEPA2 = Family(
    model_type="vjepa2",
    title="V-JEPA 2",
    config_class="VJEPA2Config",
    auto_models={
        "AutoModel": "VJEPA2Model",
        "AutoModelForVideoClassification": "VJEPA2ForVideoClassification",
    },
    other_models=("VJEPA2ForActionAnticipation", "VJEPA2ACModel"),
    model_modules={"VJEPA2ACModel": "modeling_vjepa2_ac"},
    video_processor_class="VJEPA2VideoProcessor",
    key_prefixes=("module.", "backbone."),
    presets={
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
            checkpoint_keys={"ac_encoder": "encoder", "ac_predictor": "predictor"},
            video_processor={"crop_size": 256},
            architecture="VJEPA2ACModel",
        ),
        "vjepa2.1-vitb-fpc64-384": _vjepa2_1_preset("vitb", "ema_encoder", **_DISTILLED),
        "vjepa2.1-vitl-fpc64-384": _vjepa2_1_preset("vitl", "ema_encoder", **_DISTILLED),
        "vjepa2.1-vitg-fpc64-384": _vjepa2_1_preset("vitg", "target_encoder", **_FOUR_LEVELS),
        "vjepa2.1-vitG-fpc64-384": _vjepa2_1_preset("vitG", "target_encoder", **_FOUR_LEVELS),
    },
    paper="https://arxiv.org/abs/2506.09985",
)

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


VIDEOPRISM = Family(
    model_type="videoprism",
    title="VideoPrism",
    config_class="VideoPrismConfig",
    auto_models={"AutoModel": "VideoPrismClipModel"},
    parts=(
        Part(
            model_type="videoprism_vision_model",
            config_class="VideoPrismVisionConfig",
            auto_models={
                "AutoModel": "VideoPrismVisionModel",
                "AutoModelForVideoClassification": "VideoPrismForVideoClassification",
            },
        ),
        Part(
            model_type="videoprism_text_model",
            config_class="VideoPrismTextConfig",
            auto_models={"AutoModel": "VideoPrismTextModel"},
            input="text",
            tokenizer_class="VideoPrismTokenizer",
        ),
    ),
    other_models=("VideoPrismVideoModel",),
    video_processor_class="VideoPrismVideoProcessor",
    tokenizer_class="VideoPrismTokenizer",
    processor_class="VideoPrismProcessor",
    shared_processors=("LlavaOnevisionVideoProcessor",),
    size_text="{num_spatial_layers} + {num_temporal_layers} × {hidden_size}",
    input_text="{num_frames} × {image_size}²",
    presets={
        "videoprism-base-f16r288": _videoprism_preset("base", 16),
        "videoprism-large-f8r288": _videoprism_preset("large", 8),
        "videoprism-giant-f8r288": _videoprism_preset("giant", 8, is_published=False),
        "videoprism-lvt-base-f16r288": _videoprism_preset("base", 16, text={}),
        "videoprism-lvt-large-f8r288": _videoprism_preset("large", 8, text={}),
        "videoprism-lvt-giant-f8r288": _videoprism_preset(
            "giant", 8, is_published=False, text={"num_hidden_layers": 16, "norm_policy": "primer_hybrid"}
        ),
    },
    paper="https://arxiv.org/abs/2402.13217",
)

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


VIDEOMAE = Family(
    model_type="videomae",
    title="VideoMAE",
    config_class="VideoMAEConfig",
    auto_models={
        "AutoModel": "VideoMAEModel",
        "AutoModelForPreTraining": "VideoMAEForPreTraining",
        "AutoModelForVideoClassification": "VideoMAEForVideoClassification",
    },
    functions={"random_mask": "masking_videomae", "tube_mask": "masking_videomae"},
    video_processor_class="VideoMAEVideoProcessor",
    image_processor_classes=("VideoMAEImageProcessor", "VideoMAEFeatureExtractor"),
    # TimeSformer's and X-CLIP's directories name them too.
    shared_processors=(
        "VideoMAEFeatureExtractor",
        "VideoMAEImageProcessor",
        "VideoMAEImageProcessorFast",
        "VideoMAEImageProcessorPil",
        "VideoMAEVideoProcessor",
    ),
    input_text="{num_frames} × {image_size}²",
    presets={
        name: _videomae_preset(*name.split("-")[1:3], name.endswith("-finetuned"), *where)
        for name, where in VIDEOMAE_FILES.items()
    },
    paper="https://arxiv.org/abs/2203.12602",
)

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

PE_AV_SIZES = {
    "small": {"hidden_size": 768, "intermediate_size": 2048, "num_attention_heads": 6},
    "base": {"hidden_size": 1024, "intermediate_size": 2752, "num_attention_heads": 8},
    "large": {"hidden_size": 1792, "intermediate_size": 4800, "num_attention_heads": 14},
}


def _pe_av_preset(size: str, num_frames: int | None = None) -> Preset:
    """The video and text part of PE-AV, from the revision of a repository that perception_models itself reads."""
    name = f"pe-av-{size}" if num_frames is None else f"pe-av-{size}-{num_frames}-frame"
    temporal = PE_AV_SIZES[size]
    return Preset(
        source=f"{PE_FILES}/{name}/resolve/perception_models/model.safetensors",
        config={
            "video_config": {
                **temporal,
                "num_hidden_layers": 4,
                "vision_config": {"architecture": "vit_pe_core_large_patch14_336", "num_attention_heads": 16},
            },
            "text_config": {"num_hidden_layers": 22, "num_attention_heads": 16},
        },
        checkpoint_keys={},
        video_processor={} if num_frames is None else {"num_frames": num_frames, "do_sample_frames": True},
        architecture="PeVideoModel",
        license="apache-2.0",
        size_text=f"L/14 + 4 × {temporal['hidden_size']}",
        input_text=f"{num_frames or 'all'} × 336²",
    )


PE_VIDEO = Family(
    model_type="pe_video",
    title="PE Video",
    config_class="PeVideoConfig",
    auto_models={"AutoModel": "PeVideoModel"},
    contained_in={"pe_audio_video": "PeVideoModel"},
    parts=(
        Part(
            model_type="pe_video_encoder",
            config_class="PeVideoEncoderConfig",
            auto_models={"AutoModel": "PeVideoEncoder"},
        ),
        Part(
            model_type="pe_core",
            config_class="PeCoreConfig",
            auto_models={"AutoModel": "PeCoreModel"},
            image_processor_class="PeCoreImageProcessor",
            tokenizer_class="PeCoreTokenizer",
            processor_class="PeCoreProcessor",
        ),
        Part(
            model_type="pe_core_text_model",
            config_class="PeCoreTextConfig",
            auto_models={"AutoModel": "PeCoreTextModel"},
            input="text",
            tokenizer_class="PeCoreTokenizer",
        ),
        Part(
            model_type="pe_vision_model",
            config_class="PeVisionConfig",
            auto_models={"AutoModel": "PeVisionModel"},
            input="images",
            image_processor_class="PeCoreImageProcessor",
        ),
    ),
    model_modules={
        "PeCoreConfig": "configuration_pe_core",
        "PeCoreTextConfig": "configuration_pe_core",
        "PeVisionConfig": "configuration_pe_vision",
        "PeCoreModel": "modeling_pe_core",
        "PeCoreTextModel": "modeling_pe_core",
        "PeVisionModel": "modeling_pe_vision",
        "PeCoreImageProcessor": "image_processing_pe_core",
        "PeCoreTokenizer": "tokenization_pe_core",
        "PeCoreProcessor": "processing_pe_core",
    },
    key_prefixes=("module.",),
    video_processor_class="PeVideoVideoProcessor",
    processor_class="PeVideoProcessor",
    input_text="{image_size}²",
    presets={
        **{f"pe-av-{size}": _pe_av_preset(size) for size in PE_AV_SIZES},
        **{f"pe-av-{size}-16-frame": _pe_av_preset(size, 16) for size in PE_AV_SIZES},
        **{name: _pe_preset(name, text) for name, text in PE_CORE.items()},
        **{name: _pe_preset(name) for name in PE_TOWERS},
    },
    paper="https://arxiv.org/abs/2512.19687",
)

FAMILIES: dict[str, Family] = {family.model_type: family for family in (VJEPA2, VIDEOPRISM, VIDEOMAE, PE_VIDEO)}
