"""Models on video files: what the commands share, for programs too. It loads on first use."""

from vidformers.lazy import lazy_exports


_MODULES = {
    "Embedding": ".embedder",
    "FileState": ".store",
    "Hit": ".store",
    "RayEmbedder": ".ray_engine",
    "Span": ".search",
    "Store": ".store",
    "Window": ".windows",
    "find_spans": ".search",
    "merge_hits": ".search",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
