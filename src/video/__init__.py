"""Video input: decode a file, choose frames, and turn them into model input. PyAV loads when something is decoded."""

from vidformers.lazy import lazy_exports


_MODULES = {
    "VideoDecodeError": ".source",
    "VideoFileMetadata": ".metadata",
    "VideoLimits": ".source",
    "VideoReader": ".reader",
    "decode_video": ".decode",
    "probe_video": ".decode",
    "VideoProcessor": ".processor",
    "all_indices": ".sample",
    "VJEPA2EvaluationViews": ".evaluation_views",
    "VJEPA2ImageAugmentation": ".image_augment",
    "VJEPA2ImageView": ".image_augment",
    "VJEPA2PretrainingAugmentation": ".augment",
    "VJEPA2ProbeAugmentation": ".augment",
    "anticipation_indices": ".clips",
    "clip_indices": ".clips",
    "contiguous_indices": ".sample",
    "dense_view_indices": ".views",
    "fps_indices": ".sample",
    "middle_indices": ".sample",
    "named_sampler": ".sample",
    "seconds_indices": ".sample",
    "sparse_view_indices": ".views",
    "spread_clip_indices": ".sample",
    "three_crops": ".transform",
    "uniform_indices": ".sample",
    "view_crop_starts": ".views",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
