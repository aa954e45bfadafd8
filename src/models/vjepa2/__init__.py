"""V-JEPA 2: self-supervised video encoder and predictor (https://arxiv.org/abs/2506.09985)."""

from ...families import VJEPA2
from ...lazy import lazy_exports
from .. import exported_modules


_MODULES = exported_modules(VJEPA2)
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
