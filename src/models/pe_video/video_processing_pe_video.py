"""Video processor of PE Video: `core/audio_visual_encoder/transforms.py` of perception_models (3e352cca)."""

from ..pe_core.video_processing_pe_core import PeCoreVideoProcessor


class PeVideoVideoProcessor(PeCoreVideoProcessor):
    """Prepares videos for [`PeVideoModel`] as [`PeCoreVideoProcessor`] does for PE core.

    The checkpoints whose names end in "-16-frame" are made for `num_frames=16`, the others for all frames.
    """


__all__ = ["PeVideoVideoProcessor"]
