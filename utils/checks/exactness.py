#!/usr/bin/env python3
"""Collect the families' differences from Transformers on one page, docs/exactness.md.

Usage: python utils/exactness.py

The source is the section "Differences from Transformers" of each family's page: a table, whose first column says in
which case and whose last what is done here, or else a paragraph. `utils/check_repo.py` sees that the page is up to
date.
"""

import re
from collections.abc import Mapping
from pathlib import Path


PAGE = "docs/exactness.md"
HEADING = "Differences from Transformers"
SECTION = re.compile(rf"^## {HEADING}\n+(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
TABLE = re.compile(r"(?:^\|.*\n)+", re.MULTILINE)
BLOCK = re.compile(r"(<!-- differences -->\n).*?(<!-- end -->)", re.DOTALL)


def differences(page: str) -> str | None:
    """A family's table with the columns case, Transformers and vidformers; `None` for a page without the section."""
    section = SECTION.search(page)
    if section is None:
        return None
    table = TABLE.search(section[1])
    if table is None:
        return section[1].split("\n\n")[0].strip()
    rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table[0].splitlines()]
    cells = [(case, " / ".join(filter(None, theirs)), ours) for case, *theirs, ours in rows[2:]]
    lines = [("case", "Transformers", "vidformers"), ("---", "---", "---"), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def collected(root: Path, titles: Mapping[str, str]) -> str:
    """The page as it should be.

    Args:
        root: the repository.
        titles: names of the families in prose by `model_type`; those without a page or a section are left out.
    """
    text = ""
    for name, title in titles.items():
        page = root / f"docs/model_doc/{name}.md"
        table = differences(page.read_text("utf-8")) if page.exists() else None
        if table is not None:
            link = f"model_doc/{name}.md#{HEADING.lower().replace(' ', '-')}"
            text += f"\n## {title}\n\n{table}\n\nMore in [{title}]({link}).\n"
    page = (root / PAGE).read_text("utf-8")
    return BLOCK.sub(lambda found: f"{found[1]}{text}\n{found[2]}", page)


if __name__ == "__main__":
    from check_repo import load_families

    repository = Path(__file__).parents[1]
    families = load_families(repository / "src/families.py").FAMILIES
    family_titles = {name: family.title for name, family in families.items()}
    (repository / PAGE).write_text(collected(repository, family_titles), "utf-8")
