"""PE Video: a video-text model over the frames of a Perception Encoder (https://arxiv.org/abs/2512.19687)."""

from ...families import PE_VIDEO
from ...lazy import lazy_exports
from .. import exported_modules


_MODULES = exported_modules(PE_VIDEO)
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
