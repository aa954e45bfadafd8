"""PE Video: a video-text model over the frames of a Perception Encoder (https://arxiv.org/abs/2512.19687)."""

from vidformers.lazy import lazy_exports

from .record import PE_VIDEO


__all__ = list(PE_VIDEO.modules)
__getattr__, __dir__ = lazy_exports(__name__, PE_VIDEO.modules)
