"""V-JEPA 2: self-supervised video encoder and predictor (https://arxiv.org/abs/2506.09985)."""

from vidformers.lazy import lazy_exports

from .record import FAMILY


_MODULES = {**FAMILY.modules, "PLAN_SETTINGS": ".planning_vjepa2"}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
