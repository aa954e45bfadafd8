"""Milliseconds from 16 decoded frames of 1280 × 720 pixels to a model's input, decoding excluded.

Where torchvision can be imported, transformers' built-in video processor of the same name runs in turns with ours.
"""

from importlib import import_module
from importlib.util import find_spec

import numpy as np
from side_by_side import Options, Table, interleave, run, timing_row

import vidformers
from vidformers.families import FAMILIES


FRAMES = (16, 720, 1280, 3)


def processors(model_type: str, name: str) -> dict[str, object]:
    """Our video processor of a family, and transformers' if it can be had."""
    found = {"vidformers": getattr(vidformers, name)()}
    module = f"transformers.models.{model_type}"
    if find_spec("torchvision") and find_spec(module) and find_spec(f"{module}.video_processing_{model_type}"):
        found["transformers"] = getattr(import_module(f"{module}.video_processing_{model_type}"), name)()
    return found


def preprocessing(options: Options) -> Table:
    """Milliseconds of every family's processor."""
    rounds = options.rounds_or(15)
    table = Table(f"16 × 720p uint8 → model input, {rounds} rounds", ("processor", "median ms", "min–max ms"), [])
    video = np.random.default_rng(0).integers(0, 256, FRAMES, dtype=np.uint8)
    for family in FAMILIES.values():
        calls = {
            f"{family.title}, {library}": lambda processor=processor: processor(video, return_tensors="pt")
            for library, processor in processors(family.model_type, family.video_processor_class).items()
        }
        seconds = interleave(calls, rounds)
        table.rows.extend(timing_row(label, values, unit=1e3) for label, values in seconds.items())
    return table


if __name__ == "__main__":
    run({"preprocessing": preprocessing})
