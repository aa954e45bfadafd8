"""V-JEPA 2: self-supervised video encoder and predictor (https://arxiv.org/abs/2506.09985)."""

from vidformers.lazy import lazy_exports

from .record import FAMILY


__all__ = list(FAMILY.modules)
__getattr__, __dir__ = lazy_exports(__name__, {**FAMILY.modules, "PLAN_SETTINGS": ".planning_vjepa2"})
