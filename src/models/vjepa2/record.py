"""What V-JEPA 2 is: its classes, processors and paper."""

from ..records import Family
from .presets import PRESETS


FAMILY = Family(
    model_type="vjepa2",
    title="V-JEPA 2",
    config_class="VJEPA2Config",
    auto_models={
        "AutoModel": "VJEPA2Model",
        "AutoModelForVideoClassification": "VJEPA2ForVideoClassification",
    },
    other_models=("VJEPA2ForActionAnticipation", "VJEPA2ACModel"),
    model_modules={
        "VJEPA2ForVideoClassification": "modeling_vjepa2_probes",
        "VJEPA2ForActionAnticipation": "modeling_vjepa2_probes",
        "VJEPA2ACModel": "modeling_vjepa2_ac",
    },
    video_processor_class="VJEPA2VideoProcessor",
    presets=PRESETS,
    paper="https://arxiv.org/abs/2506.09985",
)
