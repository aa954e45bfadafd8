"""Peak memory of converting a full-size V-JEPA 2 checkpoint, against the size of the file.

A ViT-L with random weights is written in the structure of the hub files: `encoder`, `target_encoder`, `predictor` and
the state of the optimiser. A fresh process converts it, checks included, and reports its peak resident memory, in
which the mapped pages of files count as well. "Attributable" is that peak less the resident memory once torch,
transformers and this package are imported. The bare file holds nothing but the tensors that are converted, which is
the strictest case: every byte of it is read.

    python utils/benchmarks/conversion_memory.py [--folder DIR]

Needs Linux and about 9 GB of disk. The target is a peak of at most 1.3 × the file.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import vidformers
from vidformers.conversion.core import expand, reverse
from vidformers.conversion.maps.vjepa2 import MAP
from vidformers.families import VJEPA2


PRESET = "vjepa2-vitl-fpc64-256"
TARGET = 1.3
# `ru_maxrss` would start from the peak of the process that starts this one; VmHWM is that of this program alone.
MEASURED = """
import json, re, sys
from pathlib import Path
import vidformers
vidformers.VJEPA2Model, vidformers.VJEPA2VideoProcessor
from vidformers.conversion import convert_checkpoint

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

baseline = peak()
convert_checkpoint(sys.argv[1], sys.argv[2], preset=sys.argv[3])
print(json.dumps({"baseline": baseline, "peak": peak()}))
"""


def original_tensors() -> dict[str, dict[str, torch.Tensor]]:
    """Random ViT-L state dicts of encoder and predictor, in the original's names."""
    torch.manual_seed(0)
    config = vidformers.VJEPA2Config(**VJEPA2.presets[PRESET].config)
    ours = vidformers.VJEPA2Model(config).state_dict()
    return {
        name: {
            f"module.backbone.{key}": tensor.clone()
            for key, tensor in reverse(expand(MAP.parts[name].rules, config), ours.__getitem__)
        }
        for name in ("encoder", "predictor")
    }


def write_files(folder: Path) -> dict[str, Path]:
    """Write the hub file and the bare file."""
    parts = original_tensors()
    bare = {"target_encoder": parts["encoder"], "predictor": parts["predictor"]}
    torch.save(bare, folder / "bare.pt")
    trained = [tensor for part in parts.values() for tensor in part.values()]
    state = {index: {"exp_avg": tensor.clone(), "exp_avg_sq": tensor.clone()} for index, tensor in enumerate(trained)}
    copy = {name: tensor.clone() for name, tensor in parts["encoder"].items()}
    torch.save({**bare, "encoder": copy, "opt": {"state": state}}, folder / "hub.pt")
    return {"hub file": folder / "hub.pt", "bare file": folder / "bare.pt"}


def measure(path: Path, out: Path) -> dict[str, int]:
    """Convert in a fresh process; resident memory in bytes."""
    command = [sys.executable, "-c", MEASURED, str(path), str(out), PRESET]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def main() -> int:
    """Print a row per file; the exit status is 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to put the files; a temporary folder by default")
    arguments = parser.parse_args()
    missed = 0
    print(f"MB; target: attributable ≤ {TARGET} × file")
    print(f"{'file':10} {'size':>8} {'peak':>8} {'÷ file':>7} {'attributable':>13} {'÷ file':>7}")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for name, path in write_files(Path(folder)).items():
            size, used = path.stat().st_size, measure(path, Path(folder) / f"{path.stem}-converted")
            own = used["peak"] - used["baseline"]
            missed += own > TARGET * size
            print(
                f"{name:10} {size / 1e6:8.0f} {used['peak'] / 1e6:8.0f} {used['peak'] / size:7.2f} "
                f"{own / 1e6:13.0f} {own / size:7.2f}"
            )
    return int(missed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
