#!/usr/bin/env python3
"""Run the benchmarks of this folder, one after the other, and write what they measure into docs/benchmarks.md.

The page has a block for every script, between `<!-- measured: NAME -->` and `<!-- end -->`; what stands around the
blocks is kept. A script without a block gets a section at the end of the page. Blocks are written as soon as their
script is done.

    python utils/benchmarks/run.py                     # everything
    python utils/benchmarks/run.py vjepa2 videoprism   # the blocks of these scripts
    python utils/benchmarks/run.py --quick             # does it all work? Tiny models; the page stays as it is
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from side_by_side import Table


FOLDER = Path(__file__).parent
PAGE = FOLDER.parents[1] / "docs/benchmarks.md"
BLOCK = re.compile(r"(<!-- measured: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def blocks(page: str) -> list[str]:
    """Names of the scripts that a page has blocks for, in its order."""
    return [found[2] for found in BLOCK.finditer(page)]


def block_text(measured: dict) -> str:
    """What a script's JSON becomes on the page."""
    tables = [Table(**table).markdown() for table in measured["tables"]]
    return "\n\n".join([*tables, f"Measured on {measured['machine']}"]) + "\n"


def scripts() -> list[str]:
    """Names of the scripts of this folder."""
    others = ("run", "side_by_side", "beside_others")
    return sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in others and "gpu" not in path.stem)


def filled(page: str, name: str, text: str) -> str:
    """The page with another text in one of its blocks, which is made if there is none."""
    if name not in blocks(page):
        page += f"\n## {name}\n\n<!-- measured: {name} -->\n<!-- end -->\n"
    return BLOCK.sub(lambda found: f"{found[1]}{text}{found[3]}" if found[2] == name else found[0], page)


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Scripts without `.py`; all by default.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    quick: Annotated[bool, typer.Option(help="Tiny models and one round; leaves the page alone.")] = False,
    page: Annotated[Path, typer.Option(help="The page to write.")] = PAGE,
) -> None:
    """Run benchmarks and write the page."""
    known = scripts()
    unknown = set(names or ()) - set(known)
    if unknown:
        raise typer.BadParameter(f"There is no script {', '.join(sorted(unknown))}; there are {', '.join(known)}.")
    ordered = blocks(page.read_text("utf-8"))
    for name in names or [*ordered, *(name for name in known if name not in ordered)]:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "tables.json"
            command = [sys.executable, str(FOLDER / f"{name}.py"), "--device", device, "--json", str(out)]
            subprocess.run([*command, *(["--quick"] if quick else [])], check=True)
            measured = json.loads(out.read_text())
        if not quick:
            page.write_text(filled(page.read_text("utf-8"), name, block_text(measured)), "utf-8")


if __name__ == "__main__":
    typer.run(main)
