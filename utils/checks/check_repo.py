#!/usr/bin/env python3
"""Check the rules that keep the repository in one piece: who may import whom, and what every family brings along.

Usage: python utils/checks/check_repo.py [ROOT]

Prints one line per violation, `file:line: rule`, and exits with status 1 if there is any. Files are parsed, not run,
apart from the records of the families.
"""

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


sys.path.insert(0, str(Path(__file__).parents[1]))

from checks import exactness
from checks.families import PACKAGE, load_families


FOLDERS = {"src": PACKAGE, "conversion": f"{PACKAGE}.conversion"}

# Which parts of the package each part may import besides itself. "" is the package's own `__init__`.
ROOT_MODULES = {"", "families", "files", "progress"}
MAY_IMPORT = {
    "commands": {*ROOT_MODULES, "conversion", "inference", "layers", "models", "training", "video"},
    "inference": {*ROOT_MODULES, "layers", "lazy", "models", "training", "video"},
    "mteb": {"sentence_transformers"},
    "sentence_transformers": {"inference", "video"},
    "training": {*ROOT_MODULES, "layers", "lazy", "models", "video"},
    "conversion": {*ROOT_MODULES, "layers", "lazy", "models", "video"},
    "models": {"layers", "lazy", "video"},
    "video": {"lazy"},
    "layers": set(),
    "": {"auto", "families", "lazy"},
    "auto": {"compat", "families", "models"},
    "compat": {"families", "models"},
    "families": {"models"},
    "files": set(),
    "progress": set(),
    "lazy": set(),
}
# What may be imported against these rules: the part, what it imports, and the module or the function that does so.
EXCEPTIONS = {
    ("models", "conversion", "from_original"),
    ("models", "conversion", "_from_remote_code"),
    ("conversion", "commands", f"{PACKAGE}.conversion.__main__"),
}
ONLY_IN_TESTS = {"timm", "torchvision"}
NOT_IMPORTABLE = {"conversion", "src", "utils"}
FURNITURE = (
    "conversion/{}/checkpoint.py",
    "conversion/{}/original.py",
    "docs/model_doc/{}.md",
    "src/models/{}/presets.py",
    "src/models/{}/record.py",
    "tests/{}/spec.py",
    "utils/benchmarks/{}.py",
)
LISTING = "src/families.py"


@dataclass(frozen=True, order=True)
class Violation:
    """A broken rule and where."""

    file: str
    line: int
    rule: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.rule}"


@dataclass(frozen=True)
class Import:
    """One imported name.

    Attributes:
        target: its absolute dotted path.
        line: of the statement.
        function: the function that the statement stands in.
        base: of a relative import the package that its dots stand for, of others "".
    """

    target: str
    line: int
    function: str
    base: str


class Source:
    """A parsed Python file of the repository, with the module name that it is imported by."""

    def __init__(self, root: Path, path: Path):
        self.file = path.relative_to(root).as_posix()
        self.parts = path.relative_to(root).with_suffix("").parts
        self.tree = ast.parse(path.read_text("utf-8"), filename=self.file)
        self.packaged = self.parts[0] in FOLDERS
        self.is_init = path.name == "__init__.py"
        names = [FOLDERS.get(self.parts[0], self.parts[0]), *self.parts[1:]]
        self.module = ".".join(names[:-1] if self.is_init else names)

    @property
    def part(self) -> str:
        """Which part of the package the file belongs to, a key of `MAY_IMPORT`."""
        return part_of(self.module)

    @property
    def floor(self) -> str:
        """The folder of the package that the file lies in, as a module: the package itself for `src/auto.py`."""
        in_folder = self.parts[0] == "conversion" or len(self.parts) > 2
        return ".".join(self.module.split(".")[: 1 + in_folder])

    def imports(self) -> Iterator[Import]:
        """Every import of the file, also those by `import_module("…")` with a literal name."""
        yield from self._imports_below(self.tree, function="")

    def _imports_below(self, node: ast.AST, function: str) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            for name, base in self._names(child):
                yield Import(name, child.lineno, function, base)
            is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from self._imports_below(child, child.name if is_function else function)

    def _names(self, node: ast.AST) -> list[tuple[str, str]]:
        """The names that a statement imports, each with the package that leading dots stand for."""
        if isinstance(node, ast.Import):
            return [(alias.name, "") for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            base, module = self._base(node.level), node.module or ""
            return [(".".join(filter(None, (base, module, alias.name))), base) for alias in node.names]
        if isinstance(node, ast.Call) and dotted(node.func).split(".")[-1] in {"import_module", "__import__"}:
            name = node.args[0] if node.args else None
            if isinstance(name, ast.Constant):
                stripped = name.value.lstrip(".")
                base = self._base(len(name.value) - len(stripped))
                return [(".".join(filter(None, (base, stripped))), base)]
        return []

    def _base(self, level: int) -> str:
        """The package that so many leading dots stand for; "" without any."""
        names = self.module.split(".")
        return ".".join(names[: len(names) + self.is_init - level]) if level else ""


def dotted(node: ast.AST) -> str:
    """The source of a chain of names (`a.b.c`), "" for any other expression."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def part_of(module: str) -> str:
    """The part of the package that a module or a name in it belongs to."""
    names = module.split(".")
    if len(names) == 1:
        return ""
    return names[1] if names[1] in MAY_IMPORT else ""


def room_of(module: str, families: Iterable[str]) -> str | None:
    """The family whose room in `models` or `conversion` a module or a name lies in."""
    names = module.split(".")
    in_room = len(names) > 2 and names[0] == PACKAGE and names[1] in ("models", "conversion") and names[2] in families
    return names[2] if in_room else None


def check_import_direction(source: Source, families: Mapping[str, Any]) -> Iterator[Violation]:
    """A floor imports from those below it."""
    if not source.packaged:
        return
    top = source.module.split(".")[1:2]
    if top and top[0] not in MAY_IMPORT:
        yield Violation(source.file, 1, f"no rule says what `{top[0]}` may import: add it to {Path(__file__).name}")
        return
    for found in source.imports():
        if found.target.split(".")[0] != PACKAGE:
            continue
        part = part_of(found.target)
        excepted = {(source.part, part, found.function), (source.part, part, source.module)} & EXCEPTIONS
        if part == source.part or part in MAY_IMPORT[source.part] or excepted:
            continue
        yield Violation(
            source.file, found.line, f"`{source.part or PACKAGE}` must not import `{part or PACKAGE}` ({found.target})"
        )


def check_relative_imports(source: Source, families: Mapping[str, Any]) -> Iterator[Violation]:
    """An import with dots stays on its floor, so that the folders show where it leads."""
    for found in source.imports() if source.packaged else ():
        if found.base and not f"{found.base}.".startswith(f"{source.floor}."):
            rule = f"relative import leaves `{source.floor}`: write `{found.target.rpartition('.')[0]}`"
            yield Violation(source.file, found.line, rule)


def check_families_apart(source: Source, families: Mapping[str, Any]) -> Iterator[Violation]:
    """A family's room imports only those that the family is built on; what families share imports none."""
    if not source.packaged:
        return
    own = room_of(source.module, families)
    allowed = {own, *families[own].based_on} if own else set()
    for found in source.imports():
        other = room_of(found.target, families)
        if other is None or other in allowed:
            continue
        who = f"family `{own}`" if own else "what families share"
        remedy = " (its record's `based_on` doesn't name it)" if own else ""
        yield Violation(source.file, found.line, f"{who} must not import family `{other}`{remedy}")


def check_foreign_imports(source: Source, families: Mapping[str, Any]) -> Iterator[Violation]:
    """No torchvision or timm in the package; the repository's folders aren't importable by their own names."""
    for found in source.imports():
        top = found.target.split(".")[0]
        if top in ONLY_IN_TESTS and source.packaged and source.part != "compat":
            yield Violation(source.file, found.line, f"the package must not import `{top}`")
        # A family's original.py runs code from a checkout, whose packages may have any name.
        if (
            top in NOT_IMPORTABLE
            and not found.base
            and not (source.packaged and source.parts[-1].startswith("original"))
        ):
            yield Violation(source.file, found.line, f"`{top}` is no package: import `{PACKAGE}.…` instead")


def check_auto_classes(source: Source, families: Mapping[str, Any]) -> Iterator[Violation]:
    """Only `src/auto.py` enters classes in the Auto classes; nothing changes how transformers' own classes load."""
    if not source.packaged or source.part == "auto":
        return
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call):
            continue
        *owner, name = dotted(node.func).split(".")
        of_auto = bool(owner) and (owner[-1].startswith("Auto") or owner[-1].endswith("_MAPPING"))
        if (name == "register" and of_auto) or name == "register_for_auto_class":
            yield Violation(source.file, node.lineno, "only src/auto.py may register with the Auto classes")
        if name == "register_checkpoint_conversion_mapping":
            yield Violation(source.file, node.lineno, "key maps of transformers are global: don't register any")


def check_packages(root: Path, families: Mapping[str, Any]) -> Iterator[Violation]:
    """A folder with modules is a package; without its `__init__.py` an installation would lack it."""
    for folder in sorted({path.parent for name in FOLDERS for path in (root / name).rglob("*.py")}):
        if not (folder / "__init__.py").exists():
            yield Violation(folder.relative_to(root).as_posix(), 1, "folder of modules without `__init__.py`")


def check_rooms(root: Path, families: Mapping[str, Any]) -> Iterator[Violation]:
    """Every family has the furniture of a family, and a place in the pages that are about all of them."""
    lines = (root / LISTING).read_text("utf-8").splitlines()
    for name, family in families.items():
        line = next((i for i, text in enumerate(lines, 1) if re.search(rf"\b{name}\b", text)), 1)
        for path in (pattern.format(name) for pattern in FURNITURE):
            if not (root / path).exists():
                yield Violation(LISTING, line, f"family `{name}` lacks {path}")
        for page, text, what in (
            ("CHANGELOG.md", family.title, f"({family.title}) is not in"),
            ("docs/_toctree.yml", f"local: model_doc/{name}\n", "is not in"),
        ):
            if not (root / page).exists() or text not in (root / page).read_text("utf-8"):
                yield Violation(LISTING, line, f"family `{name}` {what} {page}")


def check_rooms_are_listed(root: Path, families: Mapping[str, Any]) -> Iterator[Violation]:
    """Every room belongs to a family."""
    for folder in ("src/models", "conversion"):
        for init in sorted((root / folder).glob("*/__init__.py")):
            if init.parent.name not in families:
                yield Violation(init.relative_to(root).as_posix(), 1, f"a room of no family that {LISTING} lists")


def check_exactness(root: Path, families: Mapping[str, Any]) -> Iterator[Violation]:
    """Every family's page tells its differences from transformers, and one page has them all."""
    for name in families:
        page = root / f"docs/model_doc/{name}.md"
        if page.exists() and exactness.differences(page.read_text("utf-8")) is None:
            yield Violation(page.relative_to(root).as_posix(), 1, f"has no section `{exactness.HEADING}`")
    if not (root / exactness.PAGE).exists():
        yield Violation(exactness.PAGE, 1, "is missing")
    elif exactness.collected(root, families) != (root / exactness.PAGE).read_text("utf-8"):
        command = "python utils/checks/exactness.py"
        yield Violation(exactness.PAGE, 1, f"is not what the families' pages say: run `{command}`")


FILE_RULES = (
    check_import_direction,
    check_relative_imports,
    check_families_apart,
    check_foreign_imports,
    check_auto_classes,
)
TREE_RULES = (check_packages, check_rooms, check_rooms_are_listed, check_exactness)


def check(root: Path) -> list[Violation]:
    """All violations in the repository at `root`."""
    families = load_families(root)
    found = [violation for rule in TREE_RULES for violation in rule(root, families)]
    paths = [path for name in (*FOLDERS, "tests", "utils") for path in (root / name).rglob("*.py")]
    for path in paths:
        source = Source(root, path)
        found += [violation for rule in FILE_RULES for violation in rule(source, families)]
    return sorted(set(found))


def main() -> int:
    """Print the violations below the folder given on the command line, by default this repository."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2]).resolve()
    violations = check(root)
    print(*violations, sep="\n", end="\n" if violations else "")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
