"""What VideoPrism is: its classes, processors and paper."""

from ..records import Family, Part
from .presets import PRESETS


FAMILY = Family(
    model_type="videoprism",
    title="VideoPrism",
    config_class="VideoPrismConfig",
    # transformers has it there too, for zero-shot classification; its pipeline takes no videos.
    auto_models={"AutoModel": "VideoPrismClipModel", "AutoModelForZeroShotImageClassification": "VideoPrismClipModel"},
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
    model_modules={
        "VideoPrismClipModel": "modeling_videoprism_clip",
        "VideoPrismTextModel": "modeling_videoprism_clip",
    },
    video_processor_class="VideoPrismVideoProcessor",
    tokenizer_class="VideoPrismTokenizer",
    processor_class="VideoPrismProcessor",
    shared_processors=("LlavaOnevisionVideoProcessor",),
    presets=PRESETS,
    original_files={
        "VideoPrismVisionModel": "VideoPrism encoder, scanned layers",
        "VideoPrismClipModel": "VideoPrism CLIP, scanned layers",
    },
    paper="https://arxiv.org/abs/2402.13217",
)
