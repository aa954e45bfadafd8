"""VideoMAE: masked autoencoders that learn from the pixels of hidden tubelets (https://arxiv.org/abs/2203.12602)."""

from ...families import VIDEOMAE
from ...lazy import lazy_exports
from .. import exported_modules


_MODULES = exported_modules(VIDEOMAE)
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
