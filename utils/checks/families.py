"""The families of a repository, read without the package's own `__init__`, so that no torch is loaded."""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any


PACKAGE = "vidformers"


def load_families(root: Path) -> dict[str, Any]:
    """The records that `src/families.py` collects, by `model_type`.

    Args:
        root: the repository, which need not be the one that is installed.
    """
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == PACKAGE}
    sys.modules[PACKAGE] = package = ModuleType(PACKAGE)
    package.__path__ = [str(root / "src")]
    try:
        return import_module(f"{PACKAGE}.families").FAMILIES
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
            del sys.modules[name]
        sys.modules.update(hidden)
