"""Milliseconds to read 16 frames of a long file, and from 16 decoded frames to a model's input.

Where torchvision can be imported, transformers' built-in video processor of the same name runs in turns with ours;
where torchcodec can be loaded, it reads the same frames, in its exact and in its approximate mode.
"""

import sys
import tempfile
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from side_by_side import Options, Table, interleave, run, timing_row

import vidformers
from vidformers.families import FAMILIES
from vidformers.video import VideoReader, uniform_indices
from vidformers.video.torchcodec import read_torchcodec


sys.path.append(str(Path(__file__).parents[2]))
from tests.video_files import write_long_video


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


def readers(path: Path) -> dict[str, object]:
    """What reads 16 frames spread over a file, opening it anew: ours, and torchcodec if it can be had."""
    sample = partial(uniform_indices, num_frames=16)
    found = {"vidformers, index": lambda: VideoReader(path), "vidformers": lambda: VideoReader(path).read(sample)}
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, RuntimeError, OSError):
        return found
    for mode in ("exact", "approximate"):
        found[f"torchcodec, {mode}"] = lambda mode=mode: read_torchcodec(
            VideoDecoder(str(path), seek_mode=mode, num_ffmpeg_threads=0), sample
        )
    return found


def reading(options: Options) -> Table:
    """Milliseconds to index a file of 10 minutes and decode 16 of its frames."""
    rounds = options.rounds_or(7)
    title = f"16 frames of 10 minutes of 1080p at 30 frames a second, {rounds} rounds"
    table = Table(title, ("reader", "median ms", "min–max ms"), [])
    with tempfile.TemporaryDirectory() as folder:
        seconds = interleave(readers(write_long_video(Path(folder) / "long.mp4")), rounds)
    table.rows.extend(timing_row(label, values, unit=1e3) for label, values in seconds.items())
    return table


if __name__ == "__main__":
    run({"preprocessing": preprocessing, "reading": reading})
