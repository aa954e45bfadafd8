"""Milliseconds from decoded 720p frames to a V-JEPA 2 model input, decoding excluded.

python utils/benchmarks/preprocessing.py

Where torchvision can be imported, transformers' built-in video processor runs interleaved with ours.
"""

import statistics
import time
from importlib.util import find_spec
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

import vidformers


def main(
    runs: Annotated[int, typer.Option(help="Counted rounds.")] = 15,
    threads: Annotated[int, typer.Option(help="Threads.")] = 2,
) -> None:
    """Time the processors on 16 frames of 1280 × 720 pixels."""
    torch.set_num_threads(threads)
    video = np.random.default_rng(0).integers(0, 256, (16, 720, 1280, 3), dtype=np.uint8)
    processors = {"vidformers": vidformers.VJEPA2VideoProcessor()}
    if find_spec("torchvision"):
        from transformers.models.vjepa2.video_processing_vjepa2 import VJEPA2VideoProcessor

        processors["transformers"] = VJEPA2VideoProcessor()

    milliseconds = {name: [] for name in processors}
    for index in range(runs + 1):
        for name, processor in processors.items():
            start = time.perf_counter()
            processor(video, return_tensors="pt")
            if index:
                milliseconds[name].append(1e3 * (time.perf_counter() - start))
    table = Table("processor", "median ms", "min–max ms", title="16 × 720p uint8 → (1, 16, 3, 256, 256) float32")
    for name, values in milliseconds.items():
        table.add_row(name, f"{statistics.median(values):.1f}", f"{min(values):.1f}–{max(values):.1f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    typer.run(main)
