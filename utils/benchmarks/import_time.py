#!/usr/bin/env python3
"""What `import vidformers` costs on top of the Auto classes, which everybody pays who loads a model.

Usage: python utils/benchmarks/import_time.py [--rounds 9]

Every round starts two fresh processes, without and with vidformers, in turns, so that both see the same machine. The
cost is the difference of the medians; `after the Auto classes` is the same, timed inside one process.
"""

import argparse
import json
import subprocess
import sys
from statistics import median


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


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="fresh processes of each kind")
    rounds = parser.parse_args().rounds

    without, both, added = [], [], []
    for _ in range(rounds):
        without.append(sum(seconds(AUTO_CLASSES)))
        auto_classes, ours = seconds(AUTO_CLASSES, "import vidformers")
        both.append(auto_classes + ours)
        added.append(ours)

    print(f"median of {rounds} fresh processes, interleaved")
    for label, value in (
        ("Auto classes alone", median(without)),
        ("Auto classes and vidformers", median(both)),
        ("difference", median(both) - median(without)),
        ("vidformers after the Auto classes", median(added)),
    ):
        print(f"{label:36} {value:6.3f} s")


if __name__ == "__main__":
    main()
