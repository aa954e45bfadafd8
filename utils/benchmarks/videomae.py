"""VideoMAE beside transformers' built-in port: forward passes, pre-training steps, construction; in turns in one run.

python utils/benchmarks/videomae.py                        # ViT-B, 16 × 224², on the CPU
python utils/benchmarks/videomae.py --case forward --dtype fp32 --runs 3
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


NUM_FRAMES, IMAGE_SIZE = 16, 224
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
LIBRARIES = {"transformers": transformers, "vidformers": vidformers}
CASES = ("forward", "pre-training", "construction")


def build(name: str, dtype: torch.dtype = torch.float32) -> dict[str, torch.nn.Module]:
    """A class of the base size in both libraries, with the same weights."""
    models = {}
    for library, package in LIBRARIES.items():
        config = package.VideoMAEConfig(use_mean_pooling=False, attn_implementation="sdpa")
        models[library] = getattr(package, name)(config).to(dtype).eval()
    # Neither has dropout, so that training and evaluation are the same.
    models["vidformers"].load_state_dict(models["transformers"].state_dict())
    return models


def num_operations(config: transformers.PreTrainedConfig, num_tokens: int) -> float:
    """Floating-point operations of the encoder's matrix products for one video."""
    width, layers = config.hidden_size, config.num_hidden_layers
    projections = 2 * num_tokens * width * (4 * width + 2 * config.intermediate_size)
    attention = 4 * num_tokens * num_tokens * width
    voxels = config.num_channels * config.tubelet_size * config.patch_size**2
    return layers * (projections + attention) + 2 * num_tokens * voxels * width


def product_call(dtype: torch.dtype) -> tuple[Callable[[], object], float]:
    """A matrix product of the shape of the model's widest layer, and its number of operations."""
    rows, width = 1568, 768
    x, weight = torch.randn(rows, width, dtype=dtype), torch.randn(4 * width, width, dtype=dtype)
    repeats = 10
    return lambda: [torch.nn.functional.linear(x, weight) for _ in range(repeats)], repeats * 8.0 * rows * width**2


def interleave(calls: dict[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
    """Seconds of each call over `runs` rounds, after one that is not counted; every round starts with another one."""
    names = list(calls)
    seconds = {name: [] for name in names}
    for index in range(runs + 1):
        turn = index % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            calls[name]()
            if index:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def rows_of(label: str, seconds: dict[str, list[float]], remark: str = "") -> list[tuple[str, list[float], str]]:
    """Rows of the table: label, seconds, ratio of the medians and, behind ours, a remark."""
    base = statistics.median(seconds["transformers"])
    ratios = {library: f"{statistics.median(seconds[library]) / base:.3f}" for library in LIBRARIES}
    ratios["vidformers"] += remark
    return [(f"{label}, {library}", seconds[library], ratios[library]) for library in LIBRARIES]


def measure_forward(name: str, runs: int) -> list[tuple[str, list[float], str]]:
    """The encoder, batch 1, without gradients."""
    models = build("VideoMAEModel", DTYPES[name])
    video = torch.randn(1, NUM_FRAMES, 3, IMAGE_SIZE, IMAGE_SIZE).to(DTYPES[name])
    product, product_operations = product_call(DTYPES[name])
    calls = {library: lambda model=model: model(video) for library, model in models.items()}
    with torch.no_grad():
        seconds = interleave({**calls, "matrix product": product}, runs)
    rate = product_operations / statistics.median(seconds["matrix product"])
    num_tokens = (NUM_FRAMES // 2) * (IMAGE_SIZE // 16) ** 2
    share = num_operations(models["vidformers"].config, num_tokens) / rate / statistics.median(seconds["vidformers"])
    return rows_of(f"forward, {name}", seconds, f"; {share:.2f} of the matrix-product rate ({rate / 1e9:.0f} GFLOP/s)")


def measure_pretraining(name: str, runs: int) -> list[tuple[str, list[float], str]]:
    """Forward and backward pass of pre-training, batch 2, 90 % of the tokens masked in tubes."""
    models = build("VideoMAEForPreTraining", DTYPES[name])
    video = torch.randn(2, NUM_FRAMES, 3, IMAGE_SIZE, IMAGE_SIZE).to(DTYPES[name])
    mask = vidformers.tube_mask(models["vidformers"].config.token_grid, 0.9, batch_size=2, seed=0)

    def step(model: torch.nn.Module) -> None:
        model.zero_grad()
        model(video, bool_masked_pos=mask).loss.backward()

    calls = {library: lambda model=model: step(model) for library, model in models.items()}
    return rows_of(f"pre-training, {name}", interleave(calls, runs))


def measure_construction(runs: int) -> list[tuple[str, list[float], str]]:
    """A model for pre-training as `from_pretrained` makes it before it reads weights, and one with random weights."""
    rows = []
    for device, label in (("meta", "construction to be loaded"), ("cpu", "construction with random weights")):
        calls = {
            library: lambda package=package: package.VideoMAEForPreTraining(package.VideoMAEConfig())
            for library, package in LIBRARIES.items()
        }
        with torch.device(device):
            rows += rows_of(label, interleave(calls, runs))
    return rows


def main(
    runs: Annotated[int, typer.Option(help="Counted rounds.")] = 5,
    threads: Annotated[int, typer.Option(help="Threads.")] = 2,
    case: Annotated[list[str] | None, typer.Option(help=f"Some of: {', '.join(CASES)}.")] = None,
    dtype: Annotated[list[str] | None, typer.Option(help="fp32, bf16 or both, of forward passes.")] = None,
) -> None:
    """Time ViT-B in both libraries and print the table."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    table = Table(
        "case", "median s", "min–max s", "× transformers",
        title=f"VideoMAE ViT-B, {NUM_FRAMES} × {IMAGE_SIZE}², sdpa",
        caption=f"{platform.processor() or platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {threads} "
        f"threads, torch {torch.__version__}, transformers {transformers.__version__}, {runs} interleaved rounds",
    )  # fmt: skip
    wanted = case or list(CASES)
    rows = []
    if "forward" in wanted:
        for name in dtype or list(DTYPES):
            rows += measure_forward(name, runs)
            gc.collect()
    if "pre-training" in wanted:
        rows += measure_pretraining("fp32", runs)
        gc.collect()
    if "construction" in wanted:
        rows += measure_construction(runs)
    for label, values, ratio in rows:
        table.add_row(label, f"{statistics.median(values):.3f}", f"{min(values):.3f}–{max(values):.3f}", ratio)
    Console(width=140).print(table)


if __name__ == "__main__":
    typer.run(main)
