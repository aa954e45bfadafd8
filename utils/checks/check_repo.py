#!/usr/bin/env python3
"""Check the rules that keep the repository in one piece: who may import whom, and what every family brings along.

Usage: python utils/check_repo.py [ROOT]

Prints one line per violation, `file:line: rule`, and exits with status 1 if there is any. Files are parsed, not run,
apart from the list of families, `src/families.py`.
"""

import ast
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import exactness


PACKAGE = "vidformers"
FOLDERS = {"src": PACKAGE, "conversion": f"{PACKAGE}.conversion"}

# Which parts of the package each part may import besides itself. "" is the package's own `__init__`.
MAY_IMPORT = {
    "": {"auto", "families", "lazy", "models"},
    "auto": {"families", "models"},
    "classify": {"inference"},
    "cli": {"classify", "conversion", "embed", "families"},
    "conversion": {"", "families", "lazy", "layers", "models", "video"},
    "embed": {"inference"},
    "families": set(),
    "inference": {"", "families", "video"},
    "layers": set(),
    "lazy": set(),
    "models": {"families", "layers", "lazy", "video"},
    "video": {"lazy"},
}
# What families share within `models`.
SHARED_BY_FAMILIES = {"configuration", "pretrained", "processing"}
ONLY_IN_TESTS = {"timm", "torchvision"}
NOT_IMPORTABLE = {"conversion", "src", "utils"}
FAMILY_FILES = (
    "conversion/maps/{}.py",
    "conversion/originals/{}.py",
    "docs/model_doc/{}.md",
    "tests/families/{}.py",
    "utils/benchmarks/{}.py",
)
# Runs original code from a checkout of it, whose packages may have any name.
ORIGINALS = f"{PACKAGE}.conversion.originals"


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
    """One imported name: its absolute dotted path, and the function that the statement stands in."""

    target: str
    line: int
    function: str


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
    def family(self) -> str | None:
        """The family whose folder the file lies in."""
        return self.parts[2] if self.parts[:2] == ("src", "models") and len(self.parts) > 3 else None

    def imports(self) -> Iterator[Import]:
        """Every import of the file, also those by `import_module("…")` with a literal name."""
        yield from self._imports_below(self.tree, function="")

    def _imports_below(self, node: ast.AST, function: str) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            for target in self._targets(child):
                yield Import(target, child.lineno, function)
            is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from self._imports_below(child, child.name if is_function else function)

    def _targets(self, node: ast.AST) -> list[str]:
        if isinstance(node, ast.Import):
            return [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            if node.level and not self.packaged:
                return []  # the scripts' own modules, whatever folder they are run from
            base = self._absolute("." * node.level + (node.module or ""))
            return [f"{base}.{alias.name}" for alias in node.names]
        if isinstance(node, ast.Call) and dotted(node.func).split(".")[-1] in {"import_module", "__import__"}:
            name = node.args[0] if node.args else None
            return [self._absolute(name.value)] if isinstance(name, ast.Constant) else []
        return []

    def _absolute(self, name: str) -> str:
        if not name.startswith("."):
            return name
        stripped = name.lstrip(".")
        levels = len(name) - len(stripped) - self.is_init
        base = self.module.split(".")[: -levels or None]
        return ".".join([*base, stripped] if stripped else base)


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


def check_import_direction(source: Source) -> Iterator[Violation]:
    """Data flows one way, and imports follow it."""
    if not source.packaged:
        return
    top = source.module.split(".")[1:2]
    if top and top[0] not in MAY_IMPORT:
        yield Violation(source.file, 1, f"no rule says what `{top[0]}` may import: add it to utils/check_repo.py")
        return
    for found in source.imports():
        if found.target.split(".")[0] != PACKAGE:
            continue
        part = part_of(found.target)
        if part == source.part or part in MAY_IMPORT[source.part]:
            continue
        if (source.part, part, found.function) == ("models", "conversion", "from_original"):
            continue
        if source.module == f"{PACKAGE}.conversion.__main__" and part == "cli":
            continue
        yield Violation(
            source.file, found.line, f"`{source.part or PACKAGE}` must not import `{part or PACKAGE}` ({found.target})"
        )


def check_families_apart(source: Source) -> Iterator[Violation]:
    """A family doesn't import another one."""
    allowed = {source.family, *SHARED_BY_FAMILIES}
    for found in source.imports() if source.family else ():
        names = found.target.split(".")
        if names[:2] == [PACKAGE, "models"] and len(names) > 3 and names[2] not in allowed:
            yield Violation(source.file, found.line, f"family `{source.family}` must not import family `{names[2]}`")


def check_foreign_imports(source: Source) -> Iterator[Violation]:
    """No torchvision or timm in the package; the repository's folders aren't importable by their own names."""
    for found in source.imports():
        top = found.target.split(".")[0]
        if top in ONLY_IN_TESTS and source.packaged and source.part != "auto":
            yield Violation(source.file, found.line, f"the package must not import `{top}`")
        if top in NOT_IMPORTABLE and not source.module.startswith(ORIGINALS):
            yield Violation(source.file, found.line, f"`{top}` is no package: import `{PACKAGE}.…` instead")


def check_auto_classes(source: Source) -> Iterator[Violation]:
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


def check_packages(root: Path) -> Iterator[Violation]:
    """A folder with modules is a package; without its `__init__.py` an installation would lack it."""
    for folder in sorted({path.parent for name in FOLDERS for path in (root / name).rglob("*.py")}):
        if not (folder / "__init__.py").exists():
            yield Violation(folder.relative_to(root).as_posix(), 1, "folder of modules without `__init__.py`")


def check_family_files(root: Path) -> Iterator[Violation]:
    """Every registered family has all files of a family, and a place in the pages that are about all of them."""
    listing = "src/families.py"
    for name, family in load_families(root / listing).FAMILIES.items():
        lines = (root / listing).read_text("utf-8").splitlines()
        line = next(i for i, text in enumerate(lines, 1) if f'"{name}"' in text)
        for pattern in FAMILY_FILES:
            if not (root / pattern.format(name)).exists():
                yield Violation(listing, line, f"family `{name}` lacks {pattern.format(name)}")
        for page, text, what in (
            ("CHANGELOG.md", family.title, f"({family.title}) is not in"),
            ("docs/_toctree.yml", f"local: model_doc/{name}\n", "is not in"),
            ("docs/benchmarks.md", f"<!-- measured: {name} -->", "has no block in"),
        ):
            if not (root / page).exists() or text not in (root / page).read_text("utf-8"):
                yield Violation(listing, line, f"family `{name}` {what} {page}")


def check_exactness(root: Path) -> Iterator[Violation]:
    """Every family's page tells its differences from transformers, and one page has them all."""
    families = load_families(root / "src/families.py").FAMILIES
    for name in families:
        page = root / f"docs/model_doc/{name}.md"
        if page.exists() and exactness.differences(page.read_text("utf-8")) is None:
            yield Violation(page.relative_to(root).as_posix(), 1, f"has no section `{exactness.HEADING}`")
    if not (root / exactness.PAGE).exists():
        yield Violation(exactness.PAGE, 1, "is missing")
        return
    page = exactness.collected(root, {name: family.title for name, family in families.items()})
    if page != (root / exactness.PAGE).read_text("utf-8"):
        yield Violation(exactness.PAGE, 1, "is not what the families' pages say: run `python utils/exactness.py`")


def load_families(path: Path) -> ModuleType:
    """Run the list of families by itself, without the package around it."""
    spec = importlib.util.spec_from_file_location("_families", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


FILE_RULES = (check_import_direction, check_families_apart, check_foreign_imports, check_auto_classes)
TREE_RULES = (check_packages, check_family_files, check_exactness)


def check(root: Path) -> list[Violation]:
    """All violations in the repository at `root`."""
    found = [violation for rule in TREE_RULES for violation in rule(root)]
    paths = [path for name in (*FOLDERS, "tests", "utils") for path in (root / name).rglob("*.py")]
    for path in paths:
        source = Source(root, path)
        found += [violation for rule in FILE_RULES for violation in rule(source)]
    return sorted(set(found))


def main() -> int:
    """Print the violations below the folder given on the command line, by default this repository."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1]).resolve()
    violations = check(root)
    print(*violations, sep="\n", end="\n" if violations else "")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
