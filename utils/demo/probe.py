#!/usr/bin/env python3
"""Draw the picture of docs/probe.md: a probe on the toy VideoMAE tells six motions of shapes.

Usage: python utils/demo/probe.py [--out FOLDER]

Clips of shapes are encoded, a folder for each motion, and `vidformers probe` trains on them, once by its own rules and
once as V-JEPA 2's authors do. FOLDER (docs/images) receives `probe.png`. It takes minutes on one core.
"""

import argparse
import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import film
import numpy as np
import shapes
from rich.console import Console

import vidformers


MODEL = Path(vidformers.__file__).parent / "demo_models/shapes_mae"
CLIPS_OF_A_MOTION, NUM_FRAMES, SIDE = 40, 8, 64
OPTIONS = ("--epochs", "20", "--rate", "3e-4", "--rate", "1e-3", "--rate", "3e-3", "--workers", "0")


def write_clips(folder: Path) -> Path:
    """Clips of each motion, of shapes and colors that say nothing about it."""
    rng = np.random.default_rng(0)
    for motion in shapes.MOTIONS:
        (folder / motion).mkdir(parents=True)
        scenes = [scene for scene in shapes.SCENES if scene.motion == motion]
        for number in range(CLIPS_OF_A_MOTION):
            frames = shapes.render(scenes[rng.integers(len(scenes))], rng, NUM_FRAMES, SIDE)
            shapes.write_clip(folder / motion / f"{number:02}.mp4", frames)
    return folder


def main() -> None:
    """Draw the picture, and print what the command prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "docs/images", help="a folder")
    folder, console = parser.parse_args().out, Console(highlight=False, soft_wrap=True)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as name:
        clips = write_clips(Path(name) / "motions")
        for title, options in (("honest", ()), ("original", ("--as-original", "--layers", "0", "--decay", "0.1"))):
            out = Path(name) / title
            film.run(console, "probe", str(clips), "--model", str(MODEL), "--out", str(out), *OPTIONS, *options)
            measured = json.loads((out / "training.json").read_text("utf-8"))
            console.print({key: measured[key] for key in ("validation", "test")}, measured["epochs"][-1]["measures"])
        shutil.copy(Path(name) / "honest/accuracy.png", folder / "probe.png")


if __name__ == "__main__":
    main()
