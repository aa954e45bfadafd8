"""VideoMAE: masked autoencoders that learn from the pixels of hidden tubelets (https://arxiv.org/abs/2203.12602)."""

from vidformers.lazy import lazy_exports

from .record import FAMILY


__all__ = list(FAMILY.modules)
__getattr__, __dir__ = lazy_exports(__name__, FAMILY.modules)
