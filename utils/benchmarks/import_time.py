#!/usr/bin/env python3
"""What `import vidformers` costs on top of the Auto classes, which everybody pays who loads a model.

Every round starts two fresh processes, without and with vidformers, in turns, so that both see the same machine.
"""

import json
import subprocess
import sys
from statistics import median

from side_by_side import Options, Table, run, timing_row


AUTO_CLASSES = "from transformers import AutoModel; import transformers.models.auto.video_processing_auto"
TIMED = """
import json, sys, time
times = [time.perf_counter()]
for statement in sys.argv[1:]:
    exec(statement)
    times.append(time.perf_counter())
print(json.dumps([stop - start for start, stop in zip(times, times[1:])]))
"""


def seconds(*statements: str) -> list[float]:
    """How long each statement takes in a fresh process that runs one after the other."""
    done = subprocess.run([sys.executable, "-c", TIMED, *statements], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def imports(options: Options) -> Table:
    """Seconds of the imports."""
    rounds = options.rounds_or(9)
    without, both, added = [], [], []
    for _ in range(rounds):
        without.append(sum(seconds(AUTO_CLASSES)))
        auto_classes, ours = seconds(AUTO_CLASSES, "import vidformers")
        both.append(auto_classes + ours)
        added.append(ours)
    return Table(
        f"Import, {rounds} fresh processes of each kind",
        ("case", "median s", "min–max s"),
        [
            timing_row("Auto classes alone", without),
            timing_row("Auto classes and vidformers", both),
            timing_row("vidformers after the Auto classes, in one process", added),
        ],
        [f"Difference of the medians: {median(both) - median(without):.2f} s."],
    )


if __name__ == "__main__":
    run({"import": imports})
