"""Video foundation models for Hugging Face Transformers, exact to their original implementations.

Importing this package enters its classes in the Auto classes of transformers, which then give them for the families
that it holds. The few other changes that this takes in transformers are the functions of `vidformers.compat`. Set the
environment variable `VIDFORMERS_AUTO=0` to leave all of it to a call of `vidformers.register()`, and
`VIDFORMERS_AUTO=names` for `vidformers.register(names=True)`. Everything else loads on first use.
"""

import os

from .auto import register, unregister
from .families import public_modules
from .lazy import lazy_exports


__version__ = "0.1.0"

_MODULES = {
    "Classifier": ".commands.classify",
    "Searcher": ".commands.search",
    "VideoDecodeError": ".video",
    "decode_video": ".video",
    "load_original": ".conversion",
    "VideoEmbedder": ".inference.embedder",
    "VideoPreTrainedModel": ".models.pretrained",
    "Windows": ".inference.windows",
    **public_modules(),
}
__all__ = ["__version__", "register", "unregister", *_MODULES]
__getattr__, __dir__ = lazy_exports(__name__, _MODULES, ("conversion", "inference", "training", "video"))

if os.environ.get("VIDFORMERS_AUTO") != "0":
    register(names=os.environ.get("VIDFORMERS_AUTO") == "names")
