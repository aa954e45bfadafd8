"""VideoPrism beside transformers' built-in port: seconds and memory of a forward pass, interleaved in one run.

python utils/benchmarks/videoprism.py                   # base encoder and lvt-base video tower, 16 × 288², batch 1
python utils/benchmarks/videoprism.py --model encoder --dtype fp32 --runs 3
python utils/benchmarks/videoprism.py --memory          # peak memory of each tower in a process of its own
"""

import gc
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Annotated

import torch
import transformers
import typer
from rich.console import Console
from rich.table import Table

import vidformers


NUM_FRAMES, IMAGE_SIZE = 16, 288
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
MODELS = {"encoder": "VideoPrismVisionModel", "video tower": "VideoPrismVideoModel"}
LIBRARIES = {"transformers": (transformers, "eager"), "vidformers": (vidformers, "sdpa")}


def build(model: str, library: str, dtype: torch.dtype) -> torch.nn.Module:
    """A model of the base size with random weights."""
    package, attention = LIBRARIES[library]
    config = package.VideoPrismVisionConfig(attn_implementation=attention)
    return getattr(package, MODELS[model])(config).to(dtype).eval()


def num_operations(model: str, config: transformers.PreTrainedConfig) -> float:
    """Floating-point operations of the matrix products that the computation needs for one video, without poolers."""
    width, patch = config.hidden_size, config.tubelet_size[1]
    patches = (IMAGE_SIZE // patch) ** 2
    tokens = NUM_FRAMES * patches
    per_token = 2 * width * (4 * width + 2 * config.intermediate_size)
    layers = [(config.num_spatial_layers, patches), (config.num_temporal_layers, NUM_FRAMES)]
    if model == "video tower":
        layers.append((config.num_auxiliary_layers, tokens))
    blocks = sum(count * tokens * (per_token + 4 * width * keys) for count, keys in layers)
    return blocks + 2 * tokens * config.num_channels * patch**2 * width


def product_call(dtype: torch.dtype) -> tuple[Callable[[], object], float]:
    """A matrix product of the shape of the widest layer, and its number of operations."""
    x, weight = torch.randn(4096, 768, dtype=dtype), torch.randn(3072, 768, dtype=dtype)
    return lambda: torch.nn.functional.linear(x, weight), 2.0 * 4096 * 768 * 3072


def interleave(calls: dict[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
    """Seconds of each call over `runs` rounds, after one that is not counted; every round starts with another one."""
    names = list(calls)
    seconds = {name: [] for name in names}
    for index in range(runs + 1):
        turn = index % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            with torch.no_grad():
                calls[name]()
            if index:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def measure(model: str, name: str, runs: int) -> list[tuple[str, list[float], str]]:
    """Rows of the table for one model and dtype: label, seconds, remark."""
    dtype = DTYPES[name]
    built = {library: build(model, library, dtype) for library in LIBRARIES}
    built["vidformers"].load_state_dict(built["transformers"].state_dict())
    video = torch.rand(1, NUM_FRAMES, 3, IMAGE_SIZE, IMAGE_SIZE).to(dtype)
    product, product_operations = product_call(dtype)
    calls = {library: lambda module=module: module(video) for library, module in built.items()}
    seconds = interleave({**calls, "matrix product": product}, runs)
    medians = {label: statistics.median(values) for label, values in seconds.items()}
    rate = product_operations / medians["matrix product"]
    share = num_operations(model, built["vidformers"].config) / rate / medians["vidformers"]
    ratio = f"{medians['vidformers'] / medians['transformers']:.3f} × transformers"
    remarks = {
        "transformers": "eager",
        "vidformers": f"{ratio}; {share:.2f} of the matrix-product rate ({rate / 1e9:.0f} GFLOP/s)",
    }
    return [(f"{model}, {name}, {label}", seconds[label], remarks[label]) for label in remarks]


def peak_memory(model: str, library: str) -> None:
    """Print the bytes that a forward pass in float32 takes at most, beyond what the process held before it."""
    torch.set_num_threads(2)
    built, video = build(model, library, torch.float32), torch.rand(1, NUM_FRAMES, 3, IMAGE_SIZE, IMAGE_SIZE)
    gc.collect()
    with open("/proc/self/statm") as statm:
        before = int(statm.read().split()[1]) * resource.getpagesize()
    with torch.no_grad():
        built(video)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)


def memory_rows(models: list[str]) -> list[tuple[str, str, str]]:
    """Peak memory of each model in both libraries, each in a fresh process."""
    rows = []
    for model in models:
        peaks = {}
        for library in LIBRARIES:
            command = [sys.executable, __file__, "--peak-of", f"{model}/{library}"]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            peaks[library] = int(done.stdout.split()[-1])
            remark = f"{peaks[library] / peaks['transformers']:.3f} × transformers"
            rows.append((f"{model}, {library}", f"{peaks[library] / 2**20:.0f} MiB", remark))
    return rows


def main(
    runs: Annotated[int, typer.Option(help="Counted rounds.")] = 5,
    threads: Annotated[int, typer.Option(help="Threads.")] = 2,
    model: Annotated[list[str] | None, typer.Option(help="encoder, video tower or both.")] = None,
    dtype: Annotated[list[str] | None, typer.Option(help="fp32, bf16 or both.")] = None,
    memory: Annotated[bool, typer.Option(help="Measure peak memory above the weights in place of time.")] = False,
    peak_of: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Time the base encoder and the video tower in both libraries, or measure their memory, and print the table."""
    if peak_of:
        peak_memory(*peak_of.split("/"))
        return
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    title = f"VideoPrism base, 1 × {NUM_FRAMES} × {IMAGE_SIZE}²"
    caption = f"{platform.processor() or platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {threads} "
    caption += f"threads, torch {torch.__version__}, transformers {transformers.__version__}"
    if memory:
        table = Table("case", "peak above weights", "ratio", title=title, caption=caption)
        for row in memory_rows(model or list(MODELS)):
            table.add_row(*row)
    else:
        table = Table("case", "median s", "min–max s", "ratio", title=title, caption=caption)
        for kind in model or list(MODELS):
            for name in dtype or list(DTYPES):
                for label, values, remark in measure(kind, name, runs):
                    table.add_row(
                        label, f"{statistics.median(values):.3f}", f"{min(values):.3f}–{max(values):.3f}", remark
                    )
                gc.collect()
    Console(width=140).print(table)


if __name__ == "__main__":
    typer.run(main)
