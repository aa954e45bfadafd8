"""What PE Video is: its classes, processors and paper."""

from vidformers.models.pe_core.presets import PE_ARCHITECTURES

from ..records import Family, Part
from .presets import PRESETS


FAMILY = Family(
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
    ),
    video_processor_class="PeVideoVideoProcessor",
    processor_class="PeVideoProcessor",
    based_on=("pe_core",),
    architectures=PE_ARCHITECTURES,
    presets=PRESETS,
    paper="https://arxiv.org/abs/2512.19687",
)
