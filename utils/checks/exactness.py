#!/usr/bin/env python3
"""Collect the families' differences from Transformers on one page, docs/exactness.md.

Usage: python utils/checks/exactness.py

The source is the section "Differences from Transformers" of each family's page: a table, whose first columns say in
which case and why, and whose last what is done here, or else a paragraph. `utils/checks/check_repo.py` sees that the
page is up to date.
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


sys.path.insert(0, str(Path(__file__).parents[1]))

from checks.families import load_families


PAGE = "docs/exactness.md"
HEADING = "Differences from Transformers"
SECTION = re.compile(rf"^## {HEADING}\n+(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
TABLE = re.compile(r"(?:^\|.*\n)+", re.MULTILINE)
BLOCK = re.compile(r"(<!-- differences -->\n).*?(<!-- end -->)", re.DOTALL)


def differences(page: str) -> str | None:
    """A family's table: case, why, Transformers and vidformers; `None` for a page without the section."""
    section = SECTION.search(page)
    if section is None:
        return None
    table = TABLE.search(section[1])
    if table is None:
        return section[1].split("\n\n")[0].strip()
    rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table[0].splitlines()]
    cells = [(case, why, " / ".join(filter(None, theirs)), ours) for case, why, *theirs, ours in rows[2:]]
    lines = [("case", "why", "Transformers", "vidformers"), ("---",) * 4, *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def collected(root: Path, families: Mapping[str, Any]) -> str:
    """The page as it should be.

    Args:
        root: the repository.
        families: the records by `model_type`; those without a page or a section are left out.
    """
    text = ""
    for name, family in families.items():
        page = root / f"docs/model_doc/{name}.md"
        table = differences(page.read_text("utf-8")) if page.exists() else None
        if table is not None:
            link = f"model_doc/{name}.md#{HEADING.lower().replace(' ', '-')}"
            text += f"\n## {family.title}\n\n{table}\n\nMore in [{family.title}]({link}).\n"
    page = (root / PAGE).read_text("utf-8")
    return BLOCK.sub(lambda found: f"{found[1]}{text}\n{found[2]}", page)


def write(root: Path) -> None:
    """Bring the page of a repository up to date."""
    (root / PAGE).write_text(collected(root, load_families(root)), "utf-8")


if __name__ == "__main__":
    write(Path(__file__).parents[2])
