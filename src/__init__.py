"""Video foundation models for Hugging Face Transformers, exact to their original implementations.

Importing this package makes `AutoConfig`, `AutoModel`, `AutoModelForVideoClassification` and `AutoVideoProcessor`
give the classes of this package for the families that it holds. Set the environment variable `VIDFORMERS_AUTO=0` to
leave that to a call of `vidformers.register()`. Everything else loads on first use.
"""

import os

from .auto import register
from .families import public_modules
from .lazy import lazy_exports


__version__ = "0.1.0"

_MODULES = {
    "VideoDecodeError": ".video.source",
    "decode_video": ".video.decode",
    "load_original": ".conversion",
    **public_modules(),
}
__all__ = ["__version__", "register", *_MODULES]
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)

if os.environ.get("VIDFORMERS_AUTO") != "0":
    register()
