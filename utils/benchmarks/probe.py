"""Epochs of a probe on features that are kept: the first, which makes them, and those that follow.

V-JEPA 2's ViT-L with random weights reads drawn clips of 16 frames of 256² in bfloat16, as `vidformers probe` does it.

python utils/benchmarks/probe.py --threads 1
python utils/benchmarks/probe.py --quick
"""

import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from time import process_time

import torch
from side_by_side import Options, Table, run, timing_row
from windows import write_film

import vidformers
from vidformers.commands import probe


CLIPS_OF_A_CLASS = 4
TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "crop_size": 32}
HEADS = {"2 heads of cross-attention": (0, (1e-3, 3e-3)), "1 head with 3 self-attention blocks": (3, (1e-3,))}
"""Self-attention blocks and rates: what the command has by default, and a head as published."""


def write_model(folder: Path, options: Options) -> Path:
    """A directory of the encoder with random weights in bfloat16."""
    config = vidformers.VJEPA2Config(use_predictor=False, frames_per_clip=16, **(TINY if options.quick else {}))
    vidformers.VJEPA2Model(config).bfloat16().save_pretrained(folder)
    vidformers.VJEPA2VideoProcessor(crop_size=config.crop_size).save_pretrained(folder)
    return folder


def epochs(options: Options) -> Table:
    """Seconds of the first epoch, and of the others with each kind of heads."""
    rounds, seconds = options.rounds_or(3), {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = write_model(folder / "model", options)
        for label in ("a", "b"):
            (folder / "clips" / label).mkdir(parents=True)
            for number in range(CLIPS_OF_A_CLASS):
                write_film(folder / f"clips/{label}/{number}.mp4", 32, 64 if options.quick else 360)
        for heads, (layers, rates) in HEADS.items():
            settings = probe.Settings(epochs=1 + rounds, rates=rates, layers=layers)
            task = probe.prepare(
                folder / "clips", model, settings, test_share=0, device=options.device, dtype=torch.bfloat16
            )
            marks = [process_time()]
            probe.train(
                task,
                folder / f"{layers} layers",
                features=folder / "features",
                workers=0,
                on_epoch=lambda epoch, marks=marks: marks.append(process_time()),
            )
            taken = [after - before for before, after in pairwise(marks)]
            print(f"{heads}: {taken}", file=sys.stderr)
            if not seconds:  # Later features are there.
                seconds[f"first, {heads}"] = taken[:1]
            seconds[f"others, {heads}"] = taken[1:]
    first = next(iter(seconds.values()))
    count = 2 * CLIPS_OF_A_CLASS
    return Table(
        f"{'Tiny' if options.quick else 'ViT-L'}, {count} clips, 2 of them to choose by",
        ("epochs", "median s of the CPU", "min–max s", "ratio"),
        [timing_row(label, values, first) for label, values in seconds.items()],
        [
            "The first epoch reads the clips, computes their features and trains; the others read the features. "
            "Seconds are those that the processor spent, with all work in one process."
        ],
    )


if __name__ == "__main__":
    run({"epochs": epochs})
