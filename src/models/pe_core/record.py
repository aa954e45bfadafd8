"""What PE core, PE lang and PE spatial are: their classes, processors and paper."""

from ..records import Family, Part
from .presets import PE_ARCHITECTURES, PRESETS


FAMILY = Family(
    model_type="pe_core",
    title="PE core",
    config_class="PeCoreConfig",
    auto_models={"AutoModel": "PeCoreModel", "AutoModelForZeroShotImageClassification": "PeCoreModel"},
    parts=(
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
        "PeVisionConfig": "configuration_pe_vision",
        "PeVisionModel": "modeling_pe_vision",
        "PeVisionPreTrainedModel": "modeling_pe_vision",
    },
    video_processor_class="PeCoreVideoProcessor",
    image_processor_classes=("PeCoreImageProcessor",),
    tokenizer_class="PeCoreTokenizer",
    processor_class="PeCoreProcessor",
    # Directories of PE core that vidformers wrote before it had a class of its own name it.
    shared_processors=("PeVideoVideoProcessor",),
    architectures=PE_ARCHITECTURES,
    presets=PRESETS,
    original_files={
        "PeCoreModel": "PE core file",
        "PeVisionModel": "PE vision tower",
    },
    paper="https://arxiv.org/abs/2504.13181",
)
