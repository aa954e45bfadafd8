#!/usr/bin/env python3
"""Write the files of a further model family, to be filled with what is its own.

Usage: python utils/new_family.py NAME [--prefix PREFIX] [--title TITLE] [--root ROOT]

    python utils/new_family.py dinovid --prefix DinoVid --title "DINO Vid"

NAME is `config.model_type`, PREFIX begins the names of classes, TITLE names the family in prose. What comes out works:
a small video transformer with configuration, video processor, record, map, spec, page, benchmark and changelog entry,
which passes `make check` and the shared tests apart from those that ask for recordings of the original code. The
templates are in `utils/family_template`; `newfam`, `NewFam`, `NEWFAM` and `New Family` in them stand for the names.
docs/add_a_family.md says what to put in their place.
"""

import argparse
import keyword
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import exactness
from check_repo import load_families


Fill = Callable[[str], str]
TEMPLATES = Path(__file__).parent / "family_template"
SUFFIX = ".txt"
RECORD = """NEWFAM = Family(
    model_type="newfam",
    title="New Family",
    config_class="NewFamConfig",
    auto_models={"AutoModel": "NewFamModel"},
    video_processor_class="NewFamVideoProcessor",
    input_text="{num_frames} × {image_size}²",
    presets={
        "newfam-base": Preset(
            source=None,
            config={
                "hidden_size": 768,
                "num_hidden_layers": 12,
                "num_attention_heads": 12,
                "image_size": 224,
                "num_frames": 16,
            },
            checkpoint_keys={},
            video_processor={},
            architecture="NewFamModel",
            license=None,
        ),
    },
)

"""
SECTION = """## New Family

<!-- measured: newfam -->
Not measured yet.
<!-- end -->

"""


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


def with_record(text: str, fill: Fill) -> str:
    """`src/families.py` with the record, as the last entry of the list."""
    before, listing, after = text.partition("FAMILIES: dict[str, Family]")
    after, count = re.subn(r"(for family in \()([^)]*?),?\s*(\))", fill(r"\1\2, NEWFAM\3"), after, count=1)
    if not count:
        raise CannotWrite("src/families.py: no `FAMILIES` made of a tuple of records.")
    return f"{before}{fill(RECORD)}{listing}{after}"


def after_last(text: str, pattern: str, addition: str) -> str:
    """A text with an addition after the last match of a pattern."""
    found = list(re.finditer(pattern, text, re.MULTILINE))
    if not found:
        raise CannotWrite(f"nothing looks like {pattern!r}, after which {addition.strip()!r} belongs.")
    end = found[-1].end()
    return text[:end] + addition + text[end:]


def with_section(text: str, fill: Fill) -> str:
    """`docs/benchmarks.md` with a section before the first one that is about no family."""
    before, heading, after = text.partition("## Video input")
    if not heading:
        raise CannotWrite("no section `Video input`, before which those of the families stand.")
    return before + fill(SECTION) + heading + after


def with_entry(text: str, fill: Fill) -> str:
    """`CHANGELOG.md` with an entry among what the newest version added."""
    entry = "- New Family (`newfam`): configuration, encoder, video processor and conversion.\n"
    start = text.index("### Added\n") if "### Added\n" in text else None
    if start is None:
        raise CannotWrite("no section `Added`.")
    end = re.compile(r"\n+#|\n*\Z").search(text, start).start() + 1
    return text[:end] + fill(entry) + text[end:]


EDITS: dict[str, Callable[[str, Fill], str]] = {
    "src/families.py": with_record,
    "CHANGELOG.md": with_entry,
    "docs/benchmarks.md": with_section,
    "docs/_toctree.yml": lambda text, fill: after_last(
        text,
        r"^ +- local: model_doc/.*\n +title: .*\n",
        fill("    - local: model_doc/newfam\n      title: New Family\n"),
    ),
    "docs/index.md": lambda text, fill: after_last(
        text, r"^\|.*\(model_doc/.*\n", fill("| [New Family](model_doc/newfam) | features |\n")
    ),
    "README.md": lambda text, fill: after_last(
        text,
        r"^\|.*\(docs/model_doc/.*\n",
        fill("| New Family | encoder; converter | [docs/model_doc/newfam.md](docs/model_doc/newfam.md) |\n"),
    ),
}


def planned(root: Path, names: dict[str, str]) -> Iterator[tuple[Path, str]]:
    """Every file to write and its text; nothing is written unless all of them can be."""
    for name, text in new_files(names).items():
        if (root / name).exists():
            raise CannotWrite(f"{name} is there already.")
        yield root / name, text
    for name, edit in EDITS.items():
        before = (root / name).read_text("utf-8")
        try:
            yield root / name, edit(before, partial(filled, names=names))
        except CannotWrite as error:
            raise CannotWrite(f"{name}: {error}") from error


def write_family(root: Path, names: dict[str, str]) -> list[Path]:
    """Write the family below a repository's root; the files written."""
    texts = dict(planned(root, names))
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    titles = {name: family.title for name, family in load_families(root / "src/families.py").FAMILIES.items()}
    (root / exactness.PAGE).write_text(exactness.collected(root, titles), "utf-8")
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
    print("Next: the steps of docs/add_a_family.md, golden cases of the original code first.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
