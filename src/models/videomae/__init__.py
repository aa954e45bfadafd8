"""VideoMAE: masked autoencoders that learn from the pixels of hidden tubelets (https://arxiv.org/abs/2203.12602)."""

from ...lazy import lazy_exports
from .record import VIDEOMAE


__all__ = list(VIDEOMAE.modules)
__getattr__, __dir__ = lazy_exports(__name__, VIDEOMAE.modules)
