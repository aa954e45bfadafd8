"""The original implementations, as verification calls them; one module a family.

Each has `example_calls(config, architecture)`, the keyword arguments of a few small calls of our model, and
`original_stages(repository, config, found, calls)`, what the original code makes of the same calls on its own weights,
under the names that `verify.run_stages` gives our model's outputs. Where the original doesn't take them,
`original_calls(config, architecture)` has others for it.
"""

import importlib
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .core import ConversionError


@contextmanager
def importable(repository: Path, packages: tuple[str, ...] = (), modules: tuple[str, ...] = ()) -> Iterator[None]:
    """Let top-level names be imported from a checkout, whatever else has them; undone at the end."""
    wanted = [f"{name}/" for name in packages] + [f"{name}.py" for name in modules]
    missing = [name for name in wanted if not (repository / name).exists()]
    if missing:
        raise ConversionError(f"{repository}: is no checkout of the original code, it lacks {', '.join(missing)}.")

    def ours(name: str) -> bool:
        return name.partition(".")[0] in (*packages, *modules)

    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if ours(name)}
    sys.path.insert(0, str(repository))
    importlib.invalidate_caches()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ModuleNotFoundError as error:
        raise ConversionError(
            f"{repository}: the original code needs the package {error.name!r}: pip install {error.name}."
        ) from error
    finally:
        sys.path.remove(str(repository))
        for name in [name for name in sys.modules if ours(name)]:
            del sys.modules[name]
        sys.modules.update(hidden)
