"""PE core, lang and spatial: the Perception Encoder (https://arxiv.org/abs/2504.13181)."""

from vidformers.lazy import lazy_exports

from .record import PE_CORE


__all__ = list(PE_CORE.modules)
__getattr__, __dir__ = lazy_exports(__name__, PE_CORE.modules)
