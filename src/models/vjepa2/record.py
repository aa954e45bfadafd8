"""What V-JEPA 2 is: its classes, processors and paper."""

from ..records import Family
from .presets import PRESETS
from .recipes import RECIPES


FAMILY = Family(
    model_type="vjepa2",
    title="V-JEPA 2",
    config_class="VJEPA2Config",
    auto_models={
        "AutoModel": "VJEPA2Model",
        "AutoModelForPreTraining": "VJEPA2ForPreTraining",
        "AutoModelForVideoClassification": "VJEPA2ForVideoClassification",
    },
    other_models=(
        "VJEPA2ForActionAnticipation",
        "VJEPA2ACModel",
        "VJEPA2ACForPreTraining",
    ),
    model_modules={
        "VJEPA2ForPreTraining": "modeling_vjepa2_pretraining",
        "VJEPA2ForVideoClassification": "modeling_vjepa2_probes",
        "VJEPA2ForActionAnticipation": "modeling_vjepa2_probes",
        "VJEPA2ACModel": "modeling_vjepa2_ac",
        "VJEPA2ACForPreTraining": "modeling_vjepa2_ac_pretraining",
    },
    functions={
        "MultiblockMaskSampler": "sampling_vjepa2",
        "VJEPA2MaskCollator": "sampling_vjepa2",
        "compute_new_pose": "poses_vjepa2",
        "context_distances": "masking_vjepa2",
        "energy_landscape": "planning_vjepa2",
        "plan": "planning_vjepa2",
        "poses_in_camera_frame": "poses_vjepa2",
        "poses_to_actions": "poses_vjepa2",
        "receding_horizon": "planning_vjepa2",
    },
    video_processor_class="VJEPA2VideoProcessor",
    presets=PRESETS,
    recipes=RECIPES,
    original_files={
        "VJEPA2Model": "V-JEPA 2 hub file",
        "VJEPA2ForVideoClassification": "attentive probe on a V-JEPA 2 encoder",
        "VJEPA2ForActionAnticipation": "anticipation probe on a V-JEPA 2 hub file",
        "VJEPA2ACModel": "V-JEPA 2-AC hub file",
    },
    paper="https://arxiv.org/abs/2506.09985",
)
