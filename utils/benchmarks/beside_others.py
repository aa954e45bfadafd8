"""Forward passes on a CPU beside other work: alone, beside one and two busy processes, and with one thread.

Every number is vidformers' time over transformers', calls in turns in one process, and then the median and the range
over several processes. Each busy process multiplies matrices on all threads.

python utils/benchmarks/beside_others.py                       # all of it, about an hour on two cores
python utils/benchmarks/beside_others.py --only videomae --dtype bf16 --processes 3
"""

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Annotated

import torch
import typer
from rich.console import Console
from side_by_side import DTYPES, LIBRARIES, Comparison, Options, Table, interleave, machine


BUSY = "import sys, torch; torch.set_num_threads(int(sys.argv[1])); a = torch.randn(1500, 1500)\nwhile True: a @ a"
STARTED_SECONDS = 3.0
SITUATIONS = {"alone": (0, None), "beside one": (1, None), "beside two": (2, None), "one thread": (0, 1)}
"""Busy processes, and threads where they aren't those that were asked for."""

CASES: dict[str, tuple[str, Callable]] = {
    "vjepa2": ("vjepa2", lambda script, options, dtype: script.calls(options, dtype)),
    "videomae": ("videomae", lambda script, options, dtype: script.forward_calls(options, dtype)),
    "videoprism encoder": ("videoprism", lambda script, options, dtype: script.calls("encoder", options, dtype)),
    "videoprism video tower": (
        "videoprism",
        lambda script, options, dtype: script.calls("video tower", options, dtype),
    ),
    "pe_video": ("pe_video", lambda script, options, dtype: script.calls("one video", options, dtype)),
}
"""For each case its script, and how that gives the calls."""


def ratio(case: str, dtype: str, options: Options) -> float | None:
    """Our time over transformers' in this process, medians; `None` where transformers' model can't be built."""
    name, calls_of = CASES[case]
    comparison: Comparison = calls_of(importlib.import_module(name), options, DTYPES[dtype])
    calls = {library: comparison.calls[library] for library in LIBRARIES if library in comparison.calls}
    if len(calls) < len(LIBRARIES):
        return None
    seconds = interleave(calls, options.rounds_or(5))
    return median(seconds["vidformers"]) / median(seconds["transformers"])


@contextmanager
def busy(count: int, threads: int) -> Iterator[None]:
    """Some processes that use all threads."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY, str(threads)]) for _ in range(count)]
    try:
        time.sleep(STARTED_SECONDS if count else 0.0)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def in_fresh_process(case: str, dtype: str, options: Options) -> float | None:
    """[`ratio`] in a process of its own."""
    command = [sys.executable, __file__, "--ratio-of", case, "--dtype", dtype, "--threads", str(options.threads)]
    command += ["--rounds", str(options.rounds_or(5)), *(["--quick"] if options.quick else [])]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.split()[-1])


def measure(case: str, dtype: str, options: Options, processes: int) -> list[str]:
    """A row of the table: the median over the processes in every situation, and the range."""
    row = [case, dtype]
    for count, threads in SITUATIONS.values():
        with busy(count, options.threads):
            used = Options(options.rounds, threads or options.threads, quick=options.quick)
            found = [in_fresh_process(case, dtype, used) for _ in range(processes)]
        ratios = [each for each in found if each is not None]
        row.append(f"{median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})" if ratios else "–")
    return row


def main(
    only: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(CASES)}; repeatable.")] = None,
    dtype: Annotated[list[str] | None, typer.Option(help="fp32 or bf16; repeatable.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Processes for each number.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="Counted rounds in each.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the models and of busy processes.")] = 2,
    quick: Annotated[bool, typer.Option(help="Tiny models: does it work?")] = False,
    json_out: Annotated[Path | None, typer.Option("--json", help="File to write the table to.")] = None,
    ratio_of: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure, print a table and write it."""
    options = Options(rounds, threads, quick=quick)
    if ratio_of is not None:
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        typer.echo(json.dumps(ratio(ratio_of, (dtype or ["fp32"])[0], options)))
        return
    title = f"vidformers' time over transformers', median and range of {processes} processes"
    table = Table(title, ("case", "dtype", *SITUATIONS), [])
    for case in only or CASES:
        for name in dtype or DTYPES:
            table.rows.append(measure(case, name, options, processes))
            typer.echo("  ".join(table.rows[-1]))
            if json_out is not None:
                json_out.write_text(json.dumps({"machine": machine(options), "tables": [vars(table)]}))
    Console().print(table.printable())
    typer.echo(table.markdown())
    typer.echo(machine(options))


if __name__ == "__main__":
    typer.run(main)
