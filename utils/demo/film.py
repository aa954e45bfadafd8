"""A film of many scenes, and sentences that find them: what `make demo` shows of `vidformers embed` and `search`."""

import shlex
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import shapes
from rich.console import Console

from vidformers import Searcher
from vidformers.commands import cli
from vidformers.commands.classify import TOY_MODEL


# Half of the scenes that the toy model has not been trained on: every color, shape and motion is there.
SCENES = [shapes.HELD_OUT[4 * color + (color + shape) % 4] for color in range(6) for shape in (0, 1)]
SECONDS, FRAMES_PER_SECOND, SIDE = 5, 8, 128
# Of five windows two show a scene alone; the others, the end of a scene and the beginning of the next one.
WINDOW, STEP = "4s", "1s"
# A scene each, in the words of different templates.
ASKED = {number: SCENES[number].caption(template) for number, template in zip((1, 4, 7, 10), shapes.TEMPLATES)}


def write_film(path: Path) -> Path:
    """Encode the scenes one after the other: a minute."""
    rng = np.random.default_rng(0)
    clips = [shapes.render(scene, rng, SECONDS * FRAMES_PER_SECOND, SIDE) for scene in SCENES]
    return shapes.write_clip(path, np.concatenate(clips), FRAMES_PER_SECOND)


def run(console: Console, *arguments: str) -> None:
    """Run `vidformers` as a user would."""
    console.print(f"[dim]$ vidformers {shlex.join(arguments)}[/dim]")
    if cli.app(list(arguments), standalone_mode=False):
        raise SystemExit(1)


def search_film(console: Console, out: Path) -> None:
    """Embed a film in windows and search it by four sentences; tell how many find their scene first."""
    if find_spec("lancedb") is None:
        console.print("[yellow]–[/yellow] no film is searched without lancedb: pip install 'vidformers\\[search]'")
        return
    film, table, sheet, page = (out / name for name in ("film.mp4", "film.lance", "film.png", "film.html"))
    write_film(film)
    console.print(f"[green]✓[/green] encoded {film}: {len(SCENES)} scenes in {SECONDS * len(SCENES)} s")
    shutil.rmtree(table, ignore_errors=True)
    sheet.unlink(missing_ok=True)
    page.unlink(missing_ok=True)
    window = ("--window", WINDOW, "--step", STEP)
    run(console, "embed", str(film), "--model", str(TOY_MODEL), "--out", str(table), *window)
    first, *_ = ASKED.values()
    run(console, "search", str(table), first, "--sheet", str(sheet), "--html", str(page))

    searcher, found = Searcher(table), 0
    for number, sentence in ASKED.items():
        best = searcher.search(sentence, top=1)[0]
        at = int((best.start_seconds + best.end_seconds) / 2 // SECONDS)
        found += at == number
        times = f"{best.start_seconds:.0f} to {best.end_seconds:.0f} s"
        console.print(f'  "{sentence}": {times}, which shows {SCENES[at].caption()}')
    console.print(f"[green]✓[/green] {found} of {len(ASKED)} sentences found their scene first; open {page}")
