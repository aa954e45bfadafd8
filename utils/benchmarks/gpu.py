"""Everything that a GPU decides, in one run of a few minutes: is it right, how fast is it, does it wait for the CPU.

The parts run one after the other, the most important first. Each case of a part is written to `results.json` in the
folder as soon as it is done, with `tables.md` and, where matplotlib is there, plots. A case that fails is recorded
with its message. The same command again goes on where it stopped, and tries failed cases again.

    python utils/benchmarks/gpu.py --out results
    python utils/benchmarks/gpu.py --out results --minutes 3 --quick      # a few cases of each part
    python utils/benchmarks/gpu.py --out results --only speed --original-repo videoprism

It needs torch, transformers and this repository, neither a network nor PyAV. Without a GPU it runs with tiny
models on the CPU, to see that it works.
"""

import argparse
import gc
import json
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import torch
import transformers


FOLDER = Path(__file__).parent
for folder in (FOLDER, FOLDER.parents[1]):
    sys.path.insert(0, str(folder))

import gpu_checks  # noqa: E402
import gpu_report  # noqa: E402
import gpu_speed  # noqa: E402
from gpu_timing import Setting  # noqa: E402


Case = Callable[[], Any]


@dataclass(frozen=True)
class Part:
    """Some cases that share a budget.

    Attributes:
        cases: from the setting, by name, what is to be run; each gives plain values for the record.
        seconds: what the part may take at most of a run of nine minutes.
    """

    cases: Callable[[Setting], Mapping[str, Case]]
    seconds: float


PARTS = {
    "rates": Part(gpu_speed.rates, 15),
    "speed": Part(gpu_speed.speed_cases, 220),
    "waits": Part(gpu_checks.wait_cases, 20),
    "bounded": Part(gpu_checks.bounded_cases, 60),
    "pieces": Part(gpu_speed.piece_cases, 30),
    "correctness": Part(gpu_checks.model_cases, 100),
    "numbers": Part(gpu_checks.number_cases, 60),
    "recordings": Part(gpu_checks.golden_cases, 25),
    "profile": Part(gpu_speed.profile_cases, 25),
    "original": Part(gpu_speed.original_cases, 50),
    "compiled": Part(gpu_speed.compiled_cases, 150),
    "largest": Part(gpu_speed.largest_cases, 60),
}
"""What is run, the most important first."""


@dataclass
class Run:
    """A run: its setting, its end, and the records so far, by part and case.

    Attributes:
        out: folder of the records.
        setting: where and how to measure.
        ends: `time.monotonic()` at which nothing new is begun.
        share: of the parts' budgets, where less than nine minutes are to be had.
    """

    out: Path
    setting: Setting
    ends: float
    share: float
    records: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        """Where the records are."""
        return self.out / "results.json"

    def resume(self) -> None:
        """Take over what an earlier run of the same machine and versions has finished."""
        if not self.file.exists():
            return
        earlier = json.loads(self.file.read_text("utf-8"))
        if earlier["machine"] != machine(self.setting):
            raise SystemExit(
                f"{self.file} is of another machine or other versions: {earlier['machine']}. Give another --out."
            )
        self.records = {
            part: {name: record for name, record in cases.items() if "failed" not in record}
            for part, cases in earlier["parts"].items()
        }

    def run_part(self, name: str, part: Part) -> None:
        """Run the cases of a part that have no record yet, until its time is up."""
        records, ends = self.records.setdefault(name, {}), min(self.ends, time.monotonic() + self.share * part.seconds)
        try:
            cases = part.cases(self.setting)
        except Exception:
            cases = {"the part itself": _raiser(traceback.format_exc(limit=-3))}
        for case, call in cases.items():
            if case in records:
                continue
            if time.monotonic() > ends:
                print(f"[{name}] out of time before {case}", flush=True)
                break
            records[case] = self._run_case(name, case, call)
            self.write()

    def _run_case(self, part: str, name: str, call: Case) -> dict[str, Any]:
        start = time.monotonic()
        try:
            record = {"result": call()}
        except Exception as error:
            record = {
                "failed": f"{type(error).__name__}: {error}"[:2000],
                "trace": traceback.format_exc(limit=-4)[-3000:],
            }
        gc.collect()
        if self.setting.device.type == "cuda":
            torch.cuda.empty_cache()
        record["seconds"] = round(time.monotonic() - start, 2)
        outcome = gpu_report.line(record["result"]) if "result" in record else f"FAILED {record['failed'][:400]}"
        print(f"[{part}] {name} ({record['seconds']} s): {outcome}", flush=True)
        return record

    def write(self) -> None:
        """Write the records and the tables."""
        whole = {"machine": machine(self.setting), "date": date.today().isoformat(), "parts": self.records}
        self.file.with_suffix(".new").write_text(json.dumps(whole, indent=1), "utf-8")
        self.file.with_suffix(".new").replace(self.file)
        (self.out / "tables.md").write_text(gpu_report.markdown(whole), "utf-8")


def _raiser(message: str) -> Case:
    def fail() -> None:
        raise RuntimeError(message)

    return fail


def machine(setting: Setting) -> str:
    """Where and with what a run measures."""
    if setting.device.type == "cuda":
        properties = torch.cuda.get_device_properties(setting.device)
        hardware = f"{properties.name} ({properties.total_memory / 2**30:.0f} GiB)"
    else:
        hardware = "a CPU, with tiny models"
    libraries = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return f"{hardware}; {platform.system()}, Python {platform.python_version()}, {libraries}"


def arguments(given: Iterable[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for results.json, tables.md and the plots")
    parser.add_argument("--minutes", type=float, default=9.0, help="nothing is begun after so many minutes")
    parser.add_argument("--quick", action="store_true", help="few cases of each part")
    parser.add_argument("--only", action="append", choices=list(PARTS), help="this part alone; repeatable")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--original-repo", type=Path, help="checkout of google-deepmind/videoprism, to be timed in JAX"
    )
    return parser.parse_args(given)


def main(given: Iterable[str] | None = None) -> Run:
    """Run the parts that are asked for."""
    options = arguments(given)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    setting = Setting(torch.device(options.device), options.quick, options.original_repo)
    share = min(1.0, options.minutes / 9.0) if options.only is None else options.minutes
    run = Run(options.out, setting, time.monotonic() + 60 * options.minutes, share)
    options.out.mkdir(parents=True, exist_ok=True)
    run.resume()
    print(machine(setting), flush=True)
    for name in options.only or PARTS:
        run.run_part(name, PARTS[name])
    run.write()
    gpu_report.plots(run.records, options.out)
    print((options.out / "tables.md").read_text("utf-8"), flush=True)
    return run


if __name__ == "__main__":
    main()
