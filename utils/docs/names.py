"""What names in the documentation mean: references [`name`] and the `[[autodoc]]` blocks of the pages."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

import yaml
from transformers.utils import ModelOutput

from .docstrings import REFERENCE


AUTODOC = re.compile(r"^\[\[autodoc\]\] (?P<name>[\w.]+)$\n?(?P<methods>(?:    - \w+$\n?)*)", re.MULTILINE)
FENCED = re.compile(r"(^ *```.*?^ *```\s*?$)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Autodoc:
    """An `[[autodoc]]` block: an object of the package, and those of its methods that the page shows."""

    name: str
    methods: tuple[str, ...]
    page: str

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the object and of the methods."""
        return (self.name, *(f"{self.name}.{method}" for method in self.methods))


@dataclass(frozen=True)
class Page:
    """A page of the documentation: its name in the table of contents, and its text."""

    name: str
    text: str

    @property
    def prose(self) -> str:
        """The text without blocks of code."""
        return "".join(FENCED.split(self.text)[::2])


class Documentation:
    """The pages of a folder, and the package that they are about.

    Args:
        docs: the folder with `_toctree.yml`.
        package: the package.
    """

    def __init__(self, docs: Path, package: ModuleType):
        self.docs, self.package = docs, package
        self.toctree: list[dict[str, Any]] = yaml.safe_load((docs / "_toctree.yml").read_text("utf-8"))
        self.pages = {
            name: Page(name, (docs / f"{name}.md").read_text("utf-8"))
            for name in listed(self.toctree)
            if (docs / f"{name}.md").exists()
        }

    @cached_property
    def autodocs(self) -> list[Autodoc]:
        """The `[[autodoc]]` blocks of all pages."""
        return [self.autodoc(page, found) for page in self.pages.values() for found in AUTODOC.finditer(page.prose)]

    def autodoc(self, page: Page, found: re.Match) -> Autodoc:
        """The block that `AUTODOC` found; as in doc-builder, no method listed means every documented one."""
        methods = re.findall(r"\w+", found["methods"]) or documented_methods(self.find(found["name"]))
        return Autodoc(found["name"], tuple(methods), page.name)

    @cached_property
    def outputs(self) -> dict[str, list[type]]:
        """For each page, our output classes that the methods on it return and that no page documents itself."""
        documented = {id(self.find(block.name)) for block in self.autodocs}
        outputs: dict[str, list[type]] = {}
        for block in self.autodocs:
            for method in block.methods:
                for found in output_classes(getattr(self.find(block.name), method, None), self.package.__name__):
                    if id(found) not in documented:
                        documented.add(id(found))
                        outputs.setdefault(block.page, []).append(found)
        return outputs

    @cached_property
    def anchors(self) -> dict[str, str]:
        """Where the objects on the pages stand: from the name in their module to the identifier on the page."""
        anchors = {}
        for block in self.autodocs:
            for name in block.names:
                value = self.find(name)
                if value is not None:
                    anchors[_canonical(value)] = f"{self.package.__name__}.{name}"
        for classes in self.outputs.values():
            anchors |= {_canonical(output): _canonical(output) for output in classes}
        return anchors

    def find(self, name: str, module: str = "") -> Any:
        """The object that a name means, `None` if there is none.

        Args:
            name: as in [`name`]: with or without the package before it; of another package with its name.
            module: where the reference stands; names of this module are known there.
        """
        name = name.lstrip("~").split("#")[0].removeprefix(f"{self.package.__name__}.")
        starts = [self.package, *([import_module(module)] if module else [])]
        top = name.split(".")[0]
        if top in {"torch", "transformers"} and "." in name:
            starts, name = [import_module(top)], name.partition(".")[2]
        return next((value for start in starts if (value := _walk(start, name)) is not None), None)

    def link(self, name: str, module: str = "") -> str:
        """Markdown for a reference: a link if the object is on a page, code if it is elsewhere."""
        text = name.rsplit(".", 1)[-1] if name.startswith("~") else name
        value = self.find(name, module)
        anchor = self.anchors.get(_canonical(value)) if value is not None else None
        return f"[`{text}`][{anchor}]" if anchor else f"`{text}`"

    def documented_objects(self) -> Iterator[tuple[str, Any]]:
        """Everything whose docstring the pages show, by its name."""
        for block in self.autodocs:
            for name in block.names:
                value = self.find(name)
                if value is not None:
                    yield name, value
        for classes in self.outputs.values():
            yield from ((output.__name__, output) for output in classes)


def listed(toctree: list[dict[str, Any]]) -> Iterator[str]:
    """The names of the pages in a table of contents, in order."""
    for entry in toctree:
        if "local" in entry:
            yield entry["local"]
        yield from listed(entry.get("sections", []))


def documented_methods(value: Any) -> list[str]:
    """The public methods that a class itself defines with a docstring."""
    if not inspect.isclass(value):
        return []
    own = {name: getattr(value, name) for name in vars(value) if not name.startswith("_")}
    return [name for name, method in own.items() if inspect.isroutine(method) and method.__doc__]


def output_classes(function: Any, package: str) -> Iterator[type]:
    """The output classes of ours that a function returns, those that are fields of them, and what describes these."""
    if not callable(function):
        return
    returned = _hints(function).get("return")
    queue, seen = _classes(returned), []
    while queue:
        found = queue.pop(0)
        is_output = issubclass(found, ModelOutput) and f"{found.__module__}.".startswith(f"{package}.")
        if is_output and found not in seen:
            seen += [found, *(base for base in describing_bases(found) if base not in seen)]
            queue += [kind for hint in _hints(found).values() for kind in _classes(hint)]
    yield from seen


def describing_bases(output: type) -> list[type]:
    """The bases of an output that its docstring refers to, and that describe the fields which it has from them."""
    return [base for base in output.__mro__[1:] if base.__name__ in references(vars(output).get("__doc__"))]


def references(text: str | None) -> list[str]:
    """The names in [`name`] of a text, outside blocks of code."""
    return REFERENCE.findall("".join(FENCED.split(text or "")[::2]))


def _hints(value: Any) -> dict[str, Any]:
    try:
        return get_type_hints(value)
    except (NameError, TypeError):  # A name that is imported for type checkers alone.
        return {}


def _classes(hint: Any) -> list[type]:
    """The classes that a type hint is made of."""
    if inspect.isclass(hint) and not getattr(hint, "__args__", ()):
        return [hint]
    return [kind for part in getattr(hint, "__args__", ()) for kind in _classes(part)]


def _canonical(value: Any) -> str:
    value = value.fget if isinstance(value, property) else value
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"


def _walk(start: Any, path: str) -> Any:
    """The attribute at a dotted path, importing submodules on the way."""
    for name in path.split("."):
        value = getattr(start, name, None)
        if value is None and isinstance(start, ModuleType):
            try:
                value = import_module(f"{start.__name__}.{name}")
            except ModuleNotFoundError:
                return None
        if value is None:
            return None
        start = value
    return start
