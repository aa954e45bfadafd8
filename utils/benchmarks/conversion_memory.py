"""Peak memory of converting a full-size checkpoint, against the size of the file.

A model with random weights is written in the structure of the original files. A fresh process converts it, checks
included, and reports its peak resident memory, in which the mapped pages of files count as well. "Attributable" is
that peak less the resident memory once torch, transformers and this package are imported.

V-JEPA 2: ViT-L, as a hub file (`encoder`, `target_encoder`, `predictor` and the state of the optimiser) and as a bare
file with nothing but the tensors that are converted, which is the strictest case: every byte of it is read.
VideoPrism: the large video-text model, whose file holds the blocks of a stack in one array each.
VideoMAE: ViT-L with its decoder.

    python utils/benchmarks/conversion_memory.py [--family vjepa2|videoprism|videomae] [--folder DIR]

Needs Linux and about 9 GB of disk. The target is a peak of at most 1.3 × the file.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import vidformers
from vidformers.conversion.core import expand, reverse
from vidformers.conversion.maps import family_map
from vidformers.conversion.verify import layout_of
from vidformers.families import FAMILIES


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


def original_tensors(family: str) -> dict[str, dict[str, torch.Tensor]]:
    """Random state dicts of a preset's parts, in the original's names."""
    torch.manual_seed(0)
    preset, maps = FAMILIES[family].presets[PRESETS[family]], family_map(family)
    model_class = getattr(vidformers, preset.architecture)
    model = model_class(model_class.config_class(**preset.config))
    ours, layout = model.state_dict(), layout_of(FAMILIES[family], preset.architecture)
    return {
        name: dict(
            reverse(expand(maps.parts[name].rules, layout.config_of(name, model.config), prefix), ours.__getitem__)
        )
        for name, prefix in layout.parts.items()
    }


def write_vjepa2(folder: Path) -> dict[str, Path]:
    """Write the hub file and the bare file."""
    parts = {
        name: {f"module.backbone.{key}": tensor.clone() for key, tensor in part.items()}
        for name, part in original_tensors("vjepa2").items()
    }
    bare = {"target_encoder": parts["encoder"], "predictor": parts["predictor"]}
    torch.save(bare, folder / "bare.pt")
    trained = [tensor for part in parts.values() for tensor in part.values()]
    state = {index: {"exp_avg": tensor.clone(), "exp_avg_sq": tensor.clone()} for index, tensor in enumerate(trained)}
    copy = {name: tensor.clone() for name, tensor in parts["encoder"].items()}
    torch.save({**bare, "encoder": copy, "opt": {"state": state}}, folder / "hub.pt")
    return {"hub file": folder / "hub.pt", "bare file": folder / "bare.pt"}


def write_videoprism(folder: Path) -> dict[str, Path]:
    """Write the archive."""
    maps, path = family_map("videoprism"), folder / "lvt.npz"
    np.savez(
        path,
        **{
            f"{maps.parts[part].entries[0]}/{name}": tensor.numpy()
            for part, tensors in original_tensors("videoprism").items()
            for name, tensor in tensors.items()
        },
    )
    return {"lvt-large": path}


def write_videomae(folder: Path) -> dict[str, Path]:
    """Write the file of pre-training."""
    (tensors,) = original_tensors("videomae").values()
    torch.save({"model": {name: tensor.clone() for name, tensor in tensors.items()}}, folder / "pretrain.pth")
    return {"large": folder / "pretrain.pth"}


WRITERS: dict[str, Callable[[Path], dict[str, Path]]] = {
    "vjepa2": write_vjepa2,
    "videoprism": write_videoprism,
    "videomae": write_videomae,
}


def measure(path: Path, out: Path, family: str) -> dict[str, int]:
    """Convert in a fresh process; resident memory in bytes."""
    command = [sys.executable, "-c", MEASURED, str(path), str(out), PRESETS[family], family]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])


def main() -> int:
    """Print a row per file; the exit status is 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=WRITERS, help="one family; all by default")
    parser.add_argument("--folder", type=Path, help="where to put the files; a temporary folder by default")
    arguments = parser.parse_args()
    missed = 0
    print(f"MB; target: attributable ≤ {TARGET} × file")
    print(f"{'file':10} {'size':>8} {'peak':>8} {'÷ file':>7} {'attributable':>13} {'÷ file':>7}")
    for family in [arguments.family] if arguments.family else WRITERS:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            for name, path in WRITERS[family](Path(folder)).items():
                size, used = path.stat().st_size, measure(path, Path(folder) / f"{path.stem}-converted", family)
                own = used["peak"] - used["baseline"]
                missed += own > TARGET * size
                print(
                    f"{name:10} {size / 1e6:8.0f} {used['peak'] / 1e6:8.0f} {used['peak'] / size:7.2f} "
                    f"{own / 1e6:13.0f} {own / size:7.2f}",
                    flush=True,
                )
    return int(missed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
