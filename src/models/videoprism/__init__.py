"""VideoPrism: a video encoder, and with a text encoder a video-text model (https://arxiv.org/abs/2402.13217)."""

from vidformers.lazy import lazy_exports

from .record import VIDEOPRISM


__all__ = list(VIDEOPRISM.modules)
__getattr__, __dir__ = lazy_exports(__name__, VIDEOPRISM.modules)
