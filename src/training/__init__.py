"""How models learn: schedules, samplers, losses, metrics and the training of probes. It loads on first use."""

from vidformers.lazy import lazy_exports


_MODULES = {
    "ClassMeanRecall": ".metrics",
    "ClipBatches": ".batches",
    "ClipReader": ".batches",
    "ImageReader": ".batches",
    "LabelSets": ".labels",
    "MixedBatches": ".batches",
    "PreTrainer": ".pretraining",
    "ProbeTrainer": ".probes",
    "RecipeCallback": ".callbacks",
    "WeightedSampler": ".samplers",
    "feature_spread": ".metrics",
    "context_weight_schedule": ".schedules",
    "cosine_decay_schedule": ".schedules",
    "linear_decay_schedule": ".schedules",
    "momentum_schedule": ".schedules",
    "schedule_learning_rate": ".schedules",
    "sigmoid_focal_loss": ".losses",
    "unify_labels": ".labels",
    "warmup_cosine_schedule": ".schedules",
    "warmup_stable_decay_schedule": ".schedules",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
