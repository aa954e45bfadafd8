#!/usr/bin/env python3
"""Draw the picture of docs/probe.md: a probe on the toy VideoMAE tells six motions of shapes.

Usage: python utils/demo/probe.py [--out FOLDER]

Clips of shapes are encoded, a folder for each motion, and `vidformers probe` trains on them. FOLDER (docs/images)
receives `probe.png`. It takes a minute on one core.
"""

import argparse
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
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "docs/images", help="a folder")
    folder, console = parser.parse_args().out, Console(highlight=False, soft_wrap=True)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as name:
        out = Path(name) / "probe"
        clips = write_clips(Path(name) / "motions")
        film.run(console, "probe", str(clips), "--model", str(MODEL), "--out", str(out), *OPTIONS)
        shutil.copy(out / "accuracy.png", folder / "probe.png")


if __name__ == "__main__":
    main()
