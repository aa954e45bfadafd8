"""What VideoMAE is: its classes, processors and paper."""

from ..records import Family
from .presets import PRESETS
from .recipes import RECIPES


FAMILY = Family(
    model_type="videomae",
    title="VideoMAE",
    config_class="VideoMAEConfig",
    auto_models={
        "AutoModel": "VideoMAEModel",
        "AutoModelForPreTraining": "VideoMAEForPreTraining",
        "AutoModelForVideoClassification": "VideoMAEForVideoClassification",
    },
    model_modules={"VideoMAEForPreTraining": "modeling_videomae_pretraining"},
    functions={
        "VideoMAEMaskCollator": "masking_videomae",
        "detection_features": "detection_videomae",
        "dual_masks": "masking_videomae",
        "random_mask": "masking_videomae",
        "running_cell_mask": "masking_videomae",
        "tube_mask": "masking_videomae",
    },
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
    remote_code=("VideoMAEv2_",),
    presets=PRESETS,
    recipes=RECIPES,
    original_files={
        "VideoMAEModel": "VideoMAE V2 Hub directory",
        "VideoMAEForPreTraining": "VideoMAE pre-training file",
        "VideoMAEForVideoClassification": "VideoMAE fine-tuned file",
    },
    paper="https://arxiv.org/abs/2203.12602",
)
