"""Conversion between original checkpoints and this package's directories, with proof of the result.

`load_original` builds a model in memory; `convert_checkpoint` writes a directory that `from_pretrained` loads, with
processor, card and provenance, and checks it; `reverse_directory` gives the original files back. The command
`vidformers` offers the same. Modules load on first use.
"""

from vidformers.lazy import lazy_exports


_MODULES = {
    "ConversionError": ".ops",
    "convert_checkpoint": ".write",
    "load_original": ".load",
    "reverse_directory": ".write",
    "verify_directory": ".verify",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
