"""V-JEPA 2 beside transformers' built-in port: seconds of a forward pass, interleaved in one run.

python utils/benchmarks/vjepa2.py                     # ViT-L, 16 × 256², batch 1, on the CPU
python utils/benchmarks/vjepa2.py --device cuda       # batch 8, bfloat16, plain and compiled
"""

import gc
import platform
import statistics
import time
from collections.abc import Callable
from typing import Annotated

import torch
import transformers
import typer
from rich.console import Console
from rich.table import Table

import vidformers


NUM_FRAMES, CROP_SIZE, CONTEXT_SHARE = 16, 256, 0.25
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def build(dtype: torch.dtype, device: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    """transformers' ViT-L and ours, with the same weights."""
    sizes = {"frames_per_clip": NUM_FRAMES, "crop_size": CROP_SIZE, "attn_implementation": "sdpa"}
    theirs = transformers.VJEPA2Model(transformers.VJEPA2Config(**sizes)).to(device, dtype).eval()
    ours = vidformers.VJEPA2Model(vidformers.VJEPA2Config(**sizes)).to(device, dtype).eval()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def num_operations(config: transformers.PreTrainedConfig, num_tokens: int) -> float:
    """Floating-point operations of the encoder's matrix products for one video."""
    width, layers = config.hidden_size, config.num_hidden_layers
    projections = 2 * num_tokens * width * width * (4 + 2 * config.mlp_ratio)
    attention = 4 * num_tokens * num_tokens * width
    voxels = config.in_chans * config.tubelet_size * config.patch_size**2
    return layers * (projections + attention) + 2 * num_tokens * voxels * width


def time_call(call: Callable[[], object], device: str) -> float:
    """Seconds of one call, the device's work included."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    with torch.no_grad():
        call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def interleave(calls: dict[str, Callable[[], object]], runs: int, device: str) -> dict[str, list[float]]:
    """Seconds of each call over `runs` rounds, after one that is not counted; every round starts with another one."""
    names = list(calls)
    for name in names:
        time_call(calls[name], device)
    seconds = {name: [] for name in names}
    for index in range(runs):
        turn = index % len(names)
        for name in names[turn:] + names[:turn]:
            seconds[name].append(time_call(calls[name], device))
    return seconds


def product_call(dtype: torch.dtype, device: str) -> tuple[Callable[[], object], float]:
    """A matrix product of the shape of the model's widest layer, and its number of operations."""
    rows, width = 2048, 1024
    x = torch.randn(rows, width, device=device, dtype=dtype)
    weight = torch.randn(4 * width, width, device=device, dtype=dtype)
    repeats = 10
    return lambda: [torch.nn.functional.linear(x, weight) for _ in range(repeats)], repeats * 8.0 * rows * width**2


def measure(name: str, runs: int, device: str, batch_size: int) -> list[tuple[str, list[float], str]]:
    """Rows of the table for one dtype: label, seconds, remark."""
    dtype = DTYPES[name]
    theirs, ours = build(dtype, device)
    video = torch.randn(batch_size, NUM_FRAMES, 3, CROP_SIZE, CROP_SIZE).to(device, dtype)
    num_tokens = (NUM_FRAMES // 2) * (CROP_SIZE // 16) ** 2
    context = torch.stack([torch.randperm(num_tokens)[: int(CONTEXT_SHARE * num_tokens)] for _ in video]).to(device)
    product, product_operations = product_call(dtype, device)
    calls = {
        "transformers": lambda: theirs(video, skip_predictor=True),
        "vidformers": lambda: ours(video, skip_predictor=True),
        "vidformers, 25 % context": lambda: ours(video, context_mask=context, skip_predictor=True),
        "matrix product": product,
    }
    if device == "cuda":
        compiled = {"transformers": torch.compile(theirs), "vidformers": torch.compile(ours)}
        for label, model in compiled.items():
            calls[f"{label}, compiled"] = lambda model=model: model(video, skip_predictor=True)
    seconds = interleave(calls, runs, device)
    medians = {label: statistics.median(values) for label, values in seconds.items()}

    rate = product_operations / medians["matrix product"]
    share = batch_size * num_operations(ours.config, num_tokens) / rate / medians["vidformers"]
    rows = []
    for label, values in seconds.items():
        if label == "matrix product":
            continue
        base = "transformers, compiled" if "compiled" in label else "transformers"
        remark = f"{medians[label] / medians[base]:.3f} × {base}"
        if label == "vidformers":
            remark += f"; {share:.2f} of the matrix-product rate ({rate / 1e9:.0f} GFLOP/s)"
        rows.append((f"{name} {label}", values, remark))
    return rows


def main(
    runs: Annotated[int, typer.Option(help="Counted rounds.")] = 5,
    threads: Annotated[int, typer.Option(help="Threads on the CPU.")] = 2,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    batch_size: Annotated[int | None, typer.Option(help="Videos in a batch; 1 on the CPU, 8 on a GPU.")] = None,
    dtype: Annotated[list[str] | None, typer.Option(help="fp32, bf16 or both.")] = None,
) -> None:
    """Time the encoder of ViT-L in both libraries and print the table."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    batch_size = batch_size or (8 if device == "cuda" else 1)
    machine = torch.cuda.get_device_name() if device == "cuda" else f"{platform.processor() or platform.machine()}"
    table = Table(
        "case", "median s", "min–max s", "ratio",
        title=f"V-JEPA 2 ViT-L, {batch_size} × {NUM_FRAMES} × {CROP_SIZE}², sdpa",
        caption=f"{machine}, {torch.backends.cpu.get_cpu_capability()}, {threads} threads, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, {runs} interleaved rounds",
    )  # fmt: skip
    for name in dtype or (["bf16"] if device == "cuda" else list(DTYPES)):
        for label, values, remark in measure(name, runs, device, batch_size):
            table.add_row(label, f"{statistics.median(values):.3f}", f"{min(values):.3f}–{max(values):.3f}", remark)
        gc.collect()
    Console(width=140).print(table)


if __name__ == "__main__":
    typer.run(main)
