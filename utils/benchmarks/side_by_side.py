"""What the benchmarks of this folder share: calls timed in turns, peak memory, the machine, and tables of records.

A script has functions that measure, each giving a [`Table`], and ends with `run({"name": function, …})`. It can be
run alone, which prints its tables; `run.py` runs all scripts and puts the tables into docs/benchmarks.md.
"""

import gc
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated

import torch
import transformers
import typer
from rich.console import Console
from rich.table import Table as RichTable

from vidformers.layers.cpu import FALLBACK_DTYPES


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
LIBRARIES = ("transformers", "vidformers")
PRODUCT_REPEATS = 10
Call = Callable[[], object]


@dataclass(frozen=True)
class Options:
    """What the command line asks for.

    Attributes:
        rounds: counted rounds; `None` leaves the number to the table.
        threads: torch's threads on the CPU.
        device: "cpu" or "cuda".
        dtypes: keys of `DTYPES`; empty leaves the choice to the table.
        quick: whether tiny models and inputs stand in for the real ones, to see that a script works.
        original: a checkout of the original code, for scripts that can time it too.
    """

    rounds: int | None = None
    threads: int = 2
    device: str = "cpu"
    dtypes: tuple[str, ...] = ()
    quick: bool = False
    original: Path | None = None

    def rounds_or(self, usual: int) -> int:
        """Rounds to count."""
        return self.rounds or (1 if self.quick else usual)


@dataclass(frozen=True)
class Table:
    """Records of a measurement, as text.

    Attributes:
        title: what was measured, on which input.
        columns: headings.
        rows: a text for every column.
        notes: sentences to stand below.
    """

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]]
    notes: list[str] = field(default_factory=list)

    def printable(self) -> RichTable:
        """For a terminal."""
        table = RichTable(*self.columns, title=self.title, caption="\n".join(self.notes))
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """For a page."""
        lines = [list(self.columns), ["---"] * len(self.columns), *self.rows]
        grid = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return "\n\n".join([f"**{self.title}**", grid, *self.notes])


# ----------------------------------------------------------------------------------------------------------- seconds


def time_call(call: Call, device: str = "cpu") -> float:
    """Seconds of one call, the device's work included; without gradients, unless the call turns them on."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    with torch.no_grad():
        call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def interleave(calls: Mapping[str, Call], rounds: int, device: str = "cpu") -> dict[str, list[float]]:
    """Seconds of each call over `rounds` rounds, after one that is not counted; every round starts with another."""
    names = list(calls)
    for name in names:
        time_call(calls[name], device)
    seconds = {name: [] for name in names}
    for index in range(rounds):
        turn = index % len(names)
        for name in names[turn:] + names[:turn]:
            seconds[name].append(time_call(calls[name], device))
    return seconds


def timing_row(label: str, values: Sequence[float], base: Sequence[float] | None = None, unit: float = 1.0) -> list:
    """Label, median, range and, where there is a base, the ratio of the medians; numbers are multiplied by `unit`."""
    low, middle, high = (f"{unit * value:.4g}" for value in (min(values), median(values), max(values)))
    return [label, middle, f"{low}–{high}", *([] if base is None else [f"{median(values) / median(base):.3f}"])]


def product_call(rows: int, inputs: int, outputs: int, dtype: torch.dtype, device: str) -> tuple[Call, float]:
    """Matrix products of the shape of a linear layer, and their number of operations."""
    x = torch.randn(rows, inputs, device=device, dtype=dtype)
    weight = torch.randn(outputs, inputs, device=device, dtype=dtype)
    operations = 2.0 * PRODUCT_REPEATS * rows * inputs * outputs
    return lambda: [torch.nn.functional.linear(x, weight) for _ in range(PRODUCT_REPEATS)], operations


def base_of(label: str, labels: Iterable[str]) -> str:
    """What a case is divided by: the label with "transformers" for "vidformers", if there is such, or the first."""
    labels, counterpart = list(labels), label.replace("vidformers", "transformers")
    return counterpart if "transformers" in counterpart and counterpart in labels else labels[0]


@dataclass(frozen=True)
class Comparison:
    """Calls of both libraries that are timed in turns, and what the numbers are held against.

    Attributes:
        calls: by label; see [`base_of`].
        widest: (tokens, inputs, outputs) of the widest linear layer, whose product gives the machine's rate.
        operations: floating-point operations of the matrix products of a call, by label.
    """

    calls: Mapping[str, Call]
    widest: tuple[int, int, int]
    operations: Mapping[str, float]


def compare(
    title: str, build: Callable[[torch.dtype], Comparison], options: Options, rounds: Mapping[str, int]
) -> Table:
    """Time the calls of both libraries in turns, in every type of number.

    Args:
        title: of the table.
        build: makes models and inputs of a dtype.
        options: of the command line.
        rounds: for each type, a key of `DTYPES`, the usual number of rounds.
    """
    table = Table(title, ("case", "median s", "min–max s", "ratio"), [])
    for name in options.dtypes or rounds:
        _add_dtype(table, name, build(DTYPES[name]), options, options.rounds_or(rounds.get(name, 3)))
        gc.collect()
    return table


def _add_dtype(table: Table, name: str, comparison: Comparison, options: Options, rounds: int) -> None:
    """Rows and notes of one type of number."""
    product, product_operations = product_call(*comparison.widest, DTYPES[name], options.device)
    seconds = interleave({**comparison.calls, "": product}, rounds, options.device)
    rate = product_operations / median(seconds.pop(""))
    for label, values in seconds.items():
        table.rows.append(timing_row(f"{name}, {label}", values, seconds[base_of(label, seconds)]))
    shares = {label: count / rate / median(seconds[label]) for label, count in comparison.operations.items()}
    note = f"{name}, {rounds} round{'s' * (rounds > 1)}"
    if shares:
        note += ": " + ", ".join(f"{label} at {share:.2f}" for label, share in shares.items())
        note += f" of the rate of a plain matrix product of the widest layer's shape ({rate / 1e9:.0f} GFLOP/s)"
    table.notes.append(f"{note}.")


# ------------------------------------------------------------------------------------------------------------ memory


def status_bytes(name: str) -> int:
    """A field of Linux's account of this process: "VmRSS", its memory, or "VmHWM", the most that it has had."""
    return int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def extra_bytes(call: Call, device: str = "cpu") -> int:
    """What a call without gradients takes at most, beyond what was held before it. On a CPU, needs Linux."""
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # makes the peak start from here
        before = status_bytes("VmRSS")
    with torch.no_grad():
        call()
    return (torch.cuda.max_memory_allocated() if device == "cuda" else status_bytes("VmHWM")) - before


def memory_table(title: str, cases: Iterable[str], options: Options) -> Table:
    """Peak memory of a forward pass beyond weights and input, each case in a process of its own.

    Args:
        title: of the table.
        cases: keys of the script's `peaks`; see [`base_of`].
        options: of the command line.
    """
    table = Table(title, ("case", "MiB above the weights", "ratio"), [])
    found = {case: _peak_in_fresh_process(case, options) for case in cases}
    for case, peak in found.items():
        ratio = f"{peak / found[base_of(case, found)]:.3f}"
        table.rows.append((case, f"{peak / 2**20:.0f}", ratio))
    return table


def _peak_in_fresh_process(case: str, options: Options) -> int:
    command = [sys.executable, sys.argv[0], "--peak-of", case, "--device", options.device]
    command += ["--threads", str(options.threads), *(["--quick"] if options.quick else [])]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout.split()[-1])


# --------------------------------------------------------------------------------------------------------- the command


def machine(options: Options) -> str:
    """Where and with what a measurement ran."""
    if options.device == "cuda":
        hardware = torch.cuda.get_device_name()
    else:
        half = "no " if torch.bfloat16 in FALLBACK_DTYPES else ""
        hardware = f"{_processor()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()} and {half}"
        hardware += f"bfloat16 instructions, {options.threads} threads"
    libraries = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return f"{hardware}; {platform.system()}, Python {platform.python_version()}, {libraries}."


def _processor() -> str:
    """The processor's name."""
    listing = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", listing.read_text(), re.MULTILINE) if listing.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def run(
    tables: Mapping[str, Callable[[Options], Table]], peaks: Mapping[str, Callable[[Options], Call]] | None = None
) -> None:
    """The command line of a script.

    Args:
        tables: what it measures, by name.
        peaks: for [`memory_table`], by case, what builds a model and its input and returns the call.
    """

    def command(
        rounds: Annotated[int | None, typer.Option(min=1, help="Counted rounds, in place of the usual.")] = None,
        threads: Annotated[int, typer.Option(min=1, help="Threads on the CPU.")] = 2,
        device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
        dtype: Annotated[list[str] | None, typer.Option(help="fp32 or bf16; repeatable.")] = None,
        only: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(tables)}; repeatable.")] = None,
        quick: Annotated[bool, typer.Option(help="Tiny models, one round: does it work?")] = False,
        original: Annotated[
            Path | None, typer.Option("--original-repo", help="Checkout of the original code, to be timed too.")
        ] = None,
        json_out: Annotated[Path | None, typer.Option("--json", help="File to write the tables to.")] = None,
        peak_of: Annotated[str | None, typer.Option(hidden=True)] = None,
    ) -> None:
        unknown = [*({*(only or ())} - {*tables}), *({*(dtype or ())} - {*DTYPES})]
        if unknown:
            raise typer.BadParameter(f"{', '.join(unknown)}: not among {', '.join([*tables, *DTYPES])}.")
        options = Options(rounds, threads, device, tuple(dtype or ()), quick, original)
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        if peak_of is not None:
            typer.echo(extra_bytes(peaks[peak_of](options), device))
            return
        console, measured = Console(), []
        for name in only or tables:
            measured.append(tables[name](options))
            console.print(measured[-1].printable())
        console.print(machine(options))
        if json_out is not None:
            records = {"machine": machine(options), "tables": [asdict(table) for table in measured]}
            json_out.write_text(json.dumps(records))

    command.__doc__ = sys.modules["__main__"].__doc__
    typer.run(command)
