"""Peak memory of converting a full-size checkpoint, against the size of the file. Needs Linux.

A model with random weights is written as the original's file. A fresh process converts it, checks included, and
reports its peak resident memory, in which the mapped pages of files count as well, less the resident memory once
torch, transformers and this package are imported. A file without anything that conversion leaves out is the strictest
case: every byte of it is read. For V-JEPA 2 there is also a file as the hub has it, with the encoder twice and the
state of the optimizer. The target is a peak of at most 1.3 × the file.

Needs some 10 GB of disk where temporary files go; `TMPDIR` names another place.
"""

import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
from side_by_side import Options, Table, run

import vidformers
from vidformers.conversion import reverse_directory
from vidformers.families import FAMILIES
from vidformers.models.records import Preset


# Of other families, the first preset. These are large, and the second's file holds the blocks of a stack in one array.
PRESETS = {
    "vjepa2": "vjepa2-vitl-fpc64-256",
    "videoprism": "videoprism-lvt-large-f8r288",
    "videomae": "videomae-large-k400-1600e",
}
TARGET = 1.3
# `ru_maxrss` would start from the peak of the process that starts this one; VmHWM is that of this program alone.
MEASURED = """
import json, re, sys
from pathlib import Path
import vidformers
from vidformers.families import FAMILIES

family = FAMILIES[sys.argv[4]]
for name in (*family.model_classes, family.video_processor_class):
    getattr(vidformers, name)
from vidformers.conversion import convert_checkpoint

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

baseline = peak()
convert_checkpoint(sys.argv[1], sys.argv[2], preset=sys.argv[3])
print(json.dumps({"baseline": baseline, "peak": peak()}))
"""


def write_original(preset: Preset, folder: Path) -> Path:
    """A file of the original's structure with random weights, made by reversing a model."""
    torch.manual_seed(0)
    model_class = getattr(vidformers, preset.architecture)
    model_class(model_class.config_class(**preset.config)).save_pretrained(folder / "model")
    path = folder / ("original.npz" if (preset.source or "").endswith(".npz") else "original.pt")
    reverse_directory(folder / "model", path)
    return path


def write_hub_file(path: Path) -> Path:
    """V-JEPA 2's file with a second encoder and the state of the optimizer."""
    tree = torch.load(path, mmap=True, weights_only=True)
    trained = [tensor for part in tree.values() for tensor in part.values()]
    state = {index: {"exp_avg": tensor.clone(), "exp_avg_sq": tensor.clone()} for index, tensor in enumerate(trained)}
    copy = {name: tensor.clone() for name, tensor in tree["target_encoder"].items()}
    torch.save({**tree, "encoder": copy, "opt": {"state": state}}, path.with_name("hub.pt"))
    return path.with_name("hub.pt")


def measure(path: Path, out: Path, family: str, preset: str) -> dict[str, int]:
    """Convert in a fresh process; resident memory in bytes."""
    command = [sys.executable, "-c", MEASURED, str(path), str(out), preset, family]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])


def conversion(family: str, options: Options) -> Table:
    """Peak memory of converting a family's files."""
    title, name = FAMILIES[family].title, PRESETS.get(family) or next(iter(FAMILIES[family].presets))
    preset = FAMILIES[family].presets[name]
    table = Table(f"{title}, {name}", ("file", "size MB", "peak MB", f"peak ÷ file, at most {TARGET}"), [])
    if options.quick:
        table.notes.append("Left out of a quick run: every preset is a full-size model.")
        return table
    with tempfile.TemporaryDirectory() as folder:
        files = {"all of it converted": write_original(preset, Path(folder))}
        if family == "vjepa2":
            files["with another encoder and the optimizer"] = write_hub_file(files["all of it converted"])
        for label, path in files.items():
            size, used = path.stat().st_size, measure(path, Path(folder) / f"{path.stem}-converted", family, name)
            own = used["peak"] - used["baseline"]
            table.rows.append((label, f"{size / 1e6:.0f}", f"{own / 1e6:.0f}", f"{own / size:.2f}"))
        table.notes.append(f"The interpreter with all modules takes {used['baseline'] / 1e6:.0f} MB more.")
    return table


if __name__ == "__main__":
    run({family: partial(conversion, family) for family in FAMILIES})
