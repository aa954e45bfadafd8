"""Options that several commands have."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Dtype(StrEnum):
    """Types of weights."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


Family = Annotated[str | None, typer.Option(help="Family of the checkpoint; found from its tensors by default.")]
Preset = Annotated[str | None, typer.Option(help="Name of a published checkpoint: see `vidformers list`.")]
Probe = Annotated[Path | None, typer.Option(help="File of a classifier head.")]
OriginalRepo = Annotated[
    Path | None, typer.Option(help="Checkout of the original code, to run beside the converted model.")
]
NumFrames = Annotated[
    int | None, typer.Option(min=1, help="Frames to take of a video; the model's number by default.")
]
Device = Annotated[str | None, typer.Option(help="Device, such as cuda:1; by default a GPU if there is one.")]
ComputeDtype = Annotated[Dtype, typer.Option(help="Type to compute in.")]
