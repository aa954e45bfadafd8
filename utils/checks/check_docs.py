#!/usr/bin/env python3
"""Check that pages and docstrings say what the code does.

Usage: python utils/checks/check_docs.py

Prints one line per fault and exits with status 1 if there is any:

- a page that the table of contents lacks, or the reverse; a public name without a page;
- an `[[autodoc]]` block or a reference [`name`] whose object doesn't exist; a link to a page or a heading that
  doesn't;
- a docstring with an argument that the signature doesn't have; for what the pages show, also the reverse;
- a tensor that a method on the pages takes or returns, without its shape.
"""

import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import ModelOutput

import vidformers


sys.path.insert(0, str(Path(__file__).parents[1]))

from docs.docstrings import Docstring, Entry, parse
from docs.names import Documentation, describing_bases, listed, output_classes, references
from docs.pages import broken_links


ROOT = Path(__file__).parents[2]
# Bases of a family's models: they hold nothing that the models' own entries don't show.
NOT_ON_PAGES = ("PreTrainedModel", "__version__")
# Modules that import a package which documentation is built without.
NEEDING_OTHERS = {
    "mteb": "mteb",
    "sentence_transformers": "sentence_transformers",
    "layers.rope_kernel": "triton",
}
PUBLIC_SUBPACKAGES = ("video", "inference", "training", "conversion")
# "(B, T, C, H, W)", "(B,)", "(B, (T / 2)·h·w, D)"; a number without a dimension is a "scalar".
DIMENSION = r"(?:[\w·.…'²₀-₉+/*×-]|\([^(),]*\)| [-+·/×] | or )+"
SHAPE = re.compile(rf"\({DIMENSION},(?: {DIMENSION}(?:, {DIMENSION})*)?\)|\bscalars?\b|\balways `None`")


def check_contents(documentation: Documentation) -> Iterator[str]:
    """Pages and table of contents have each other; every public name has a page."""
    files = {path.relative_to(documentation.docs) for path in documentation.docs.rglob("*.md")}
    there = {path.with_suffix("").as_posix() for path in files}
    named = list(listed(documentation.toctree))
    for name in sorted(there - set(named)):
        yield f"docs/{name}.md: not in docs/_toctree.yml"
    for name in sorted(set(named) - there):
        yield f"docs/_toctree.yml: names {name}, but there is no docs/{name}.md"
    shown = [documentation.find(block.name) for block in documentation.autodocs]
    for name in public_names(documentation.package):
        if documentation.find(name) not in shown and not name.endswith(NOT_ON_PAGES):
            yield f"{documentation.package.__name__}.{name}: public, but no page has `[[autodoc]] {name}`"


def public_names(package: ModuleType) -> Iterator[str]:
    """The names that a package and its public subpackages offer, without the package's own name."""
    yield from package.__all__
    for name in PUBLIC_SUBPACKAGES:
        yield from (f"{name}.{offered}" for offered in import_module(f"{package.__name__}.{name}").__all__)


def check_names(documentation: Documentation) -> Iterator[str]:
    """Blocks, references and links lead to something."""
    for block in documentation.autodocs:
        value = documentation.find(block.name)
        missing = [block.name] if value is None else [m for m in block.methods if not hasattr(value, m)]
        for name in missing:
            yield f"docs/{block.page}.md: `[[autodoc]] {block.name}` names {name}, which doesn't exist"
    for page in documentation.pages.values():
        for name in references(page.text):
            if documentation.find(name) is None:
                yield f"docs/{page.name}.md: [`{name}`] names nothing in {documentation.package.__name__}"
        for problem in broken_links(page, documentation):
            yield f"docs/{page.name}.md: {problem}"


def check_arguments(name: str, value: Any, *, all_of_them: bool) -> Iterator[str]:
    """Arguments in a docstring are those of the signature.

    Args:
        name: what to call the object in the report.
        value: a function or a class.
        all_of_them: whether the docstring must explain every argument, as those on the pages must.
    """
    documented = parse(inspect.getdoc(value)).entries("Args", "Attributes")
    signature = signature_of(value)
    for argument in documented:
        if argument not in signature and not (None in signature and takes_field(value, argument)):
            yield f"{name}: its docstring explains `{argument}`, which is no argument"
    if all_of_them:
        for argument in own_arguments(value, signature):
            if argument not in documented:
                yield f"{name}: its docstring doesn't explain `{argument}`"


def signature_of(value: Any) -> dict[str | None, Any]:
    """The annotations of the arguments by name; `None` stands for `**kwargs`."""
    found: dict[str | None, Any] = {}
    for parameter in parameters_of(value):
        found[parameter.name] = parameter.annotation
        if parameter.kind is parameter.VAR_KEYWORD:
            found[None] = parameter.annotation
    if inspect.isclass(value):  # Attributes of records that are no dataclasses.
        found |= {name: hint for base in value.__mro__ for name, hint in vars(base).get("__annotations__", {}).items()}
    return found


def parameters_of(value: Any) -> list[inspect.Parameter]:
    """The parameters of a function or a class; none for exceptions, which users don't make, and for plain `dict`s."""
    if inspect.isclass(value) and (issubclass(value, BaseException) or value.__init__ is dict.__init__):
        return []
    return list(inspect.signature(value).parameters.values())


def takes_field(value: Any, name: str) -> bool:
    """Whether a class that takes `**kwargs` has an attribute of this name, or, as processors do, lists it."""
    listed_names = getattr(getattr(value, "valid_kwargs", None), "__annotations__", {})
    return inspect.isclass(value) and (hasattr(value, name) or name in listed_names)


def own_arguments(value: Any, signature: dict[str | None, Any]) -> list[str]:
    """The arguments that a docstring must explain: of a record its own fields, of the rest all but `**kwargs`."""
    if not inspect.isclass(value):
        skipped = {"self", "cls", "kwargs", None}
        return [name for name in signature if name not in skipped]
    if issubclass(value, ModelOutput):
        elsewhere = {entry.name for base in describing_bases(value) for entry in fields(base)}
        return [entry.name for entry in fields(value) if entry.name not in elsewhere]
    if is_dataclass(value):
        annotations = vars(value).get("__annotations__", {})
        return [entry.name for entry in fields(value) if entry.name in annotations]
    if issubclass(value, PreTrainedModel):
        return []  # `config`, whose class the signature names.
    return [parameter.name for parameter in parameters_of(value) if parameter.name != "kwargs"]


def check_shapes(name: str, value: Any, documentation: Documentation) -> Iterator[str]:
    """Tensors that a method takes or returns have a shape in its docstring, and fields of outputs in theirs."""
    docstring = parse(inspect.getdoc(value))
    entries = docstring.entries("Args", "Attributes")
    for argument, annotation in signature_of(value).items():
        known = argument not in entries or has_shape(argument, entries[argument], value.__module__, documentation)
        if is_tensor(annotation) and not known:
            yield f"{name}: the docstring gives no shape for `{argument}`, such as (B, N, D)"
    if inspect.isclass(value):
        return
    returned = inspect.signature(value).return_annotation
    ours = list(output_classes(value, documentation.package.__name__))
    if not ours and (is_tensor(returned) or "Output" in str(returned)) and not returns_shape(docstring):
        yield f"{name}: the docstring gives no shape for what it returns, such as (B, N, D)"


def is_tensor(annotation: Any) -> bool:
    """Whether an annotation, as an object or as text, allows tensors."""
    return "Tensor" in str(annotation)


def has_shape(name: str, entry: Entry, module: str, documentation: Documentation) -> bool:
    """Whether an entry gives a shape, or names an output class whose field of the same name does.

    Args:
        name: of the argument or field.
        entry: its entry.
        module: where the entry stands.
        documentation: all pages.
    """
    if SHAPE.search(" ".join(entry.text.split())):
        return True
    for reference in references(entry.text):
        there = parse(inspect.getdoc(documentation.find(reference, module))).entries("Args", "Attributes")
        if name in there and SHAPE.search(" ".join(there[name].text.split())):
            return True
    return False


def returns_shape(docstring: Docstring) -> bool:
    """Whether a docstring gives the shape of what comes back, under `Returns` or in a first line without sections."""
    section = docstring.section("Returns", "Yields")
    prose = " ".join(part for part in docstring.parts if isinstance(part, str))
    return bool(SHAPE.search(" ".join((section.text if section else prose).split())))


def package_objects(package: str) -> Iterator[tuple[str, Any]]:
    """Every class, function and method that the modules of a package define, by its full name."""
    # A subpackage may lie in a folder of its own, as `conversion` does, which a walk of the package's doesn't meet.
    tops = [package, *(f"{package}.{name}" for name in PUBLIC_SUBPACKAGES)]
    paths = {name: getattr(import_module(name), "__path__", ()) for name in tops}
    inside = [info.name for top, path in paths.items() for info in pkgutil.walk_packages(path, f"{top}.")]
    names = dict.fromkeys(name for name in [*tops, *inside] if "__main__" not in name)
    for name, needed in NEEDING_OTHERS.items():
        if find_spec(needed) is None:
            names.pop(f"{package}.{name}", None)
    for module in map(import_module, names):
        for name, value in sorted(vars(module).items()):
            if getattr(value, "__module__", None) != module.__name__ or not callable(value):
                continue
            yield f"{module.__name__}.{name}", value
            for method, function in vars(value).items() if inspect.isclass(value) else ():
                function = getattr(function, "__func__", function)
                if inspect.isfunction(function) and function.__module__ == module.__name__:
                    yield f"{module.__name__}.{name}.{method}", function


def check_docstring(name: str, value: Any, documentation: Documentation) -> Iterator[str]:
    """What holds for every docstring of the package, on the pages or not."""
    # Not an inherited docstring: transformers rewrites some of its own while it runs.
    text = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    text = text and inspect.cleandoc(text)
    for reference in references(text):
        if documentation.find(reference, value.__module__) is None:
            yield f"{name}: [`{reference}`] names nothing in {documentation.package.__name__}"
    try:
        parse(text)
    except ValueError as error:
        yield f"{name}: {error}"
        return
    if text and parse(text).section("Args", "Attributes"):
        yield from check_arguments(name, value, all_of_them=False)


def check(documentation: Documentation) -> list[str]:
    """All faults, each once."""
    package = documentation.package.__name__
    found = [*check_contents(documentation), *check_names(documentation)]
    for name, value in package_objects(package):
        found += check_docstring(name, value, documentation)
    if found:  # What follows reads docstrings of objects that must exist.
        return list(dict.fromkeys(found))
    for name, value in documentation.documented_objects():
        if isinstance(value, property):
            continue
        found += check_arguments(name, value, all_of_them=True)
        found += check_shapes(name, value, documentation)
    return list(dict.fromkeys(found))


def main() -> int:
    """Print the faults of this repository."""
    faults = check(Documentation(ROOT / "docs", vidformers))
    print(*faults, sep="\n", end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
