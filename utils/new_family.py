#!/usr/bin/env python3
"""Write the rooms of a further model family, to be filled with what is its own.

Usage: python utils/new_family.py NAME [--prefix PREFIX] [--title TITLE] [--root ROOT]

    python utils/new_family.py dinovid --prefix DinoVid --title "DINO Vid"

NAME is `config.model_type`, PREFIX begins the names of classes, TITLE names the family in prose. What comes out works:
a small video transformer with configuration, video processor, record, presets, forms, spec, tests, page and benchmark,
which passes `make check` and the shared tests apart from those that ask for recordings of the original code. The
templates are in `utils/family_template`; `newfam`, `NewFam`, `NEWFAM` and `New Family` in them stand for the names.
docs/add_a_family.md says what to put in their place.

Of the files that are there already three get a line each: the list in src/families.py, the table of contents and the
changelog. docs/exactness.md is made anew.
"""

import argparse
import keyword
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path

from checks import exactness


TEMPLATES = Path(__file__).parent / "family_template"
SUFFIX = ".txt"
# Shared files: the line below which a list stands, what the list's lines begin with, and the lines to add to it.
LISTS = {
    "src/families.py": ("ROOMS = (", "    ", '    "newfam",\n'),
    "docs/_toctree.yml": ("- title: Models", "  ", "    - local: model_doc/newfam\n      title: New Family\n"),
    "CHANGELOG.md": (
        "### Added",
        "",
        "- New Family (`newfam`): configuration, encoder, video processor and conversion.\n",
    ),
}


class CannotWrite(ValueError):
    """A family that cannot be written here; the message says why."""


def names_for(model_type: str, prefix: str | None, title: str | None) -> dict[str, str]:
    """What stands for each of the templates' names."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", model_type) or keyword.iskeyword(model_type):
        raise CannotWrite(f"{model_type!r}: expected lower-case letters, digits and single underscores, as `vjepa2`.")
    prefix = prefix or "".join(word.capitalize() for word in model_type.split("_"))
    if not re.fullmatch(r"[A-Z][A-Za-z0-9]*", prefix):
        raise CannotWrite(f"{prefix!r}: expected the beginning of class names, as `VJEPA2`.")
    title = title or prefix
    if not re.fullmatch(r"\w[^\n\"'|\\<>{}]*", title):
        raise CannotWrite(f"{title!r}: expected a name in prose without quotes, brackets or bars, as `V-JEPA 2`.")
    return {"NewFam": prefix, "NEWFAM": model_type.upper(), "newfam": model_type, "New Family": title}


def filled(text: str, names: dict[str, str]) -> str:
    """A template with the family's names."""
    return re.sub("|".join(names), lambda found: names[found[0]], text)


def new_files(names: dict[str, str]) -> dict[str, str]:
    """Texts of the family's own files by their paths."""
    return {
        filled(path.relative_to(TEMPLATES).as_posix().removesuffix(SUFFIX), names): filled(
            path.read_text("utf-8"), names
        )
        for path in sorted(TEMPLATES.rglob(f"*{SUFFIX}"))
    }


def with_lines(text: str, heading: str, indent: str, lines: str) -> str:
    """A text with lines more at the end of a list.

    Args:
        text: has the list.
        heading: the line above it.
        indent: what each line of the list begins with.
        lines: to add.
    """
    before, found, after = text.partition(f"{heading}\n")
    if not found:
        raise CannotWrite(f"has no line {heading!r}, below which {lines.strip()!r} belongs.")
    listed = list(takewhile(lambda line: line.strip() and line.startswith(indent), after.splitlines(keepends=True)))
    end = sum(map(len, listed))
    return before + found + after[:end] + lines + after[end:]


def planned(root: Path, names: dict[str, str]) -> Iterator[tuple[Path, str]]:
    """Every file to write and its text; nothing is written unless all of them can be."""
    for name, text in new_files(names).items():
        if (root / name).exists():
            raise CannotWrite(f"{name} is there already.")
        yield root / name, text
    for name, (heading, indent, lines) in LISTS.items():
        before = (root / name).read_text("utf-8")
        try:
            yield root / name, with_lines(before, heading, indent, filled(lines, names))
        except CannotWrite as error:
            raise CannotWrite(f"{name}: {error}") from error


def write_family(root: Path, names: dict[str, str]) -> list[Path]:
    """Write the family below a repository's root; the files written."""
    texts = dict(planned(root, names))
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    exactness.write(root)
    sources = [str(path) for path in texts if path.suffix == ".py"]
    if find_spec("ruff"):
        # The order of imports and the breaks of lines depend on the names.
        for command in (["check", "--quiet", "--fix", "--select", "I"], ["format", "--quiet"]):
            subprocess.run([sys.executable, "-m", "ruff", *command, *sources], cwd=root, check=True)
    return [*texts, root / exactness.PAGE]


def main() -> int:
    """Write the family that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="`config.model_type`, such as vjepa2")
    parser.add_argument("--prefix", help="beginning of the class names, such as VJEPA2; from the name by default")
    parser.add_argument("--title", help="the name in prose, such as V-JEPA 2; the prefix by default")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="the repository")
    arguments = parser.parse_args()
    try:
        names = names_for(arguments.name, arguments.prefix, arguments.title)
        for path in write_family(arguments.root, names):
            print(path.relative_to(arguments.root))
    except CannotWrite as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(
        "Next: the steps of docs/add_a_family.md, golden cases of the original code first. The tables of README.md and"
    )
    print("docs/index.md name families too.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
