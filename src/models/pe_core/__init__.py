"""PE core, lang and spatial: the Perception Encoder (https://arxiv.org/abs/2504.13181)."""

from vidformers.lazy import lazy_exports

from .record import FAMILY


__all__ = list(FAMILY.modules)
__getattr__, __dir__ = lazy_exports(__name__, FAMILY.modules)
