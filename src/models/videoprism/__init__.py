"""VideoPrism: a video encoder, and with a text encoder a video-text model (https://arxiv.org/abs/2402.13217)."""

from ...families import VIDEOPRISM
from ...lazy import lazy_exports
from .. import exported_modules


_MODULES = exported_modules(VIDEOPRISM)
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
