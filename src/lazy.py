"""Names of a package that load the module that holds them on first use."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_exports(
    package: str, modules: Mapping[str, str], subpackages: Sequence[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Module-level `__getattr__` and `__dir__` that serve names from modules not yet loaded.

    Args:
        package: name of the package that offers the names.
        modules: for each name, the module that defines it, relative to the package (`".modeling_vjepa2"`).
        subpackages: names of packages in it that are served, too.
    """

    def load(name: str) -> Any:
        if name in subpackages:
            return import_module(f".{name}", package)
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(modules[name], package), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules, *subpackages})

    return load, names
