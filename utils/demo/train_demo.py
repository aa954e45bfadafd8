#!/usr/bin/env python3
"""Train a demo model that ships with the package, from clips of moving shapes that are drawn on the fly.

Usage: python utils/demo/train_demo.py {clip,mae,world} [--out FOLDER] [--steps N] [--batch-size N] [--seed N]
       [--threads N]

`clip` is the VideoPrism CLIP that tells shapes by sentences (shapes_clip.py), `mae` the VideoMAE that fills in
hidden parts of a clip (shapes_mae.py), `world` the V-JEPA 2-AC that foresees where a shape is moved to
(shapes_world.py). FOLDER (src/demo_models/shapes_clip, shapes_mae or shapes_world) receives model and processor as
`from_pretrained` takes them, and `training.json`: settings, the curve, the time that it took, and the result on
scenes or problems that the training has not seen.
"""

import argparse
import json
from pathlib import Path

import shapes_clip
import shapes_mae
import shapes_world
import torch
from transformers import PreTrainedModel


FOLDER = Path(__file__).parents[2] / "src/demo_models"
MODELS = {"clip": shapes_clip, "mae": shapes_mae, "world": shapes_world}


def write(folder: Path, model: PreTrainedModel, processor, record: dict) -> None:
    """Save model, processor and record as a directory for `from_pretrained`."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "training.json").write_text(json.dumps(record, indent=1) + "\n")


def main(arguments: list[str] | None = None) -> None:
    """Train and write the directory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=MODELS, help="which model to train")
    parser.add_argument("--out", type=Path, help="folder to write to")
    for name in ("steps", "batch_size", "seed"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help="by default as for the model that ships")
    parser.add_argument("--threads", type=int, default=1, help="threads to compute on; the result depends on it")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    given = {name: getattr(options, name) for name in ("steps", "batch_size", "seed")}
    module = MODELS[options.model]
    settings = module.Settings(**{name: value for name, value in given.items() if value is not None})
    model, processor, record = module.train(settings)
    folder = options.out or FOLDER / f"shapes_{options.model}"
    write(folder, model, processor, record)
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    print(f"{module.describe(record)}, {size:.2f} MB in {folder}")


if __name__ == "__main__":
    main()
