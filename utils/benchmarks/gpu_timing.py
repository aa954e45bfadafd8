"""How `gpu.py` measures: calls in turns, timed by the device's own clock, and the memory that they take."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch


Call = Callable[[], Any]

SHORTEST_SAMPLE = 0.02
"""Seconds that a sample lasts at least: calls that take less are repeated in it."""


@dataclass(frozen=True)
class Setting:
    """Where and how to measure.

    Attributes:
        device: where models run.
        quick: whether few cases are enough.
        original: checkout of VideoPrism's original code, or `None`.
    """

    device: torch.device
    quick: bool = False
    original: Path | None = None

    @property
    def tiny(self) -> bool:
        """Whether tiny models stand in for the real ones: on a CPU."""
        return self.device.type == "cpu"


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def sample(call: Call, repeats: int, device: torch.device) -> float:
    """Seconds of a call on the device's clock, mean of some repeats one after the other."""
    if device.type != "cuda":
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        return (time.perf_counter() - start) / repeats
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000 / repeats


def interleave(
    calls: Mapping[str, Call], device: torch.device, *, seconds: float = 1.2, most: int = 11
) -> dict[str, list[float]]:
    """Samples of each call, taken in turns, after two warm-up calls; every round starts with another one.

    Args:
        calls: by label.
        device: whose clock counts.
        seconds: what the rounds may take together; there are three at least, and no more on a CPU, whose times mean
            nothing here.
        most: rounds at most.
    """
    names, repeats = list(calls), {}
    with torch.no_grad():
        for name in names:
            calls[name]()
            once = sample(calls[name], 1, device)
            repeats[name] = 1 if device.type != "cuda" else max(1, min(50, round(SHORTEST_SAMPLE / max(once, 1e-6))))
        taken: dict[str, list[float]] = {name: [] for name in names}
        end = time.monotonic() + (seconds if device.type == "cuda" else 0.0)
        for turn in range(most):
            if turn >= 3 and time.monotonic() > end:
                break
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                taken[name].append(sample(calls[name], repeats[name], device))
    return taken


def summary(samples: list[float]) -> dict[str, float]:
    """Median and range in milliseconds."""
    return {"ms": 1e3 * median(samples), "least_ms": 1e3 * min(samples), "most_ms": 1e3 * max(samples)}


def extra_mib(call: Call, device: torch.device) -> float | None:
    """MiB that a call without gradients takes beyond what was held before; `None` on a CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    with torch.no_grad():
        call()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def count_operations(call: Call) -> float:
    """Floating-point operations of the matrix products, convolutions and fused attention of a call."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        call()
    return float(counter.get_total_flops())


def distance(expected: torch.Tensor, actual: torch.Tensor) -> float:
    """‖actual - expected‖ / ‖expected‖ in float64, whatever axes of length one there are."""
    expected, actual = expected.detach().double(), actual.detach().double().reshape(expected.shape)
    return ((actual - expected).norm() / expected.norm()).item()
