"""Share of the cores' time, between the ends of the first and the last trial, spent on training and evaluation.

    python benchmarks/utilisation.py [--study DIRECTORY] [--cores N] [--json PATH]

Without --study the default study is run first. Each epoch counts with the computing time measured by the trial. This
interval ends when the driver received the epoch, and is clipped to the span.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # this script's folder has a study.py, which would hide the package

# isort: split
from study.ledger.ledger import StudyLedger
from study.plan.resolve import load_plan


def utilisation(directory: Path, cores: int) -> dict[str, float]:
    """Return the share of `cores` × span spent computing in trials."""
    ledger = StudyLedger(load_plan(directory))
    ends = sorted(entry.ended for entry in ledger.entries.values() if entry.ended is not None)
    first, last = ends[0], ends[-1]
    busy = 0.0
    for entry in ledger.entries.values():
        for epoch, measures in entry.epochs.items():
            end = entry.epoch_times[epoch]
            busy += max(0.0, min(end, last) - max(end - measures["cost/seconds"], first))
    return {"trials": len(ends), "span_seconds": last - first, "cores": cores, "share": busy / (cores * (last - first))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, help="folder of a finished study; the default study is run if not given")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        directory = arguments.study
        if directory is None:
            command = ["--space", "adapter_width", "--output-dir", folder, "--name", "default", "--quiet"]
            subprocess.run([sys.executable, "-m", "study.launch", *command], check=True, stdout=subprocess.DEVNULL)
            directory = Path(folder) / "default"
        row = {**utilisation(directory, arguments.cores), "load_before": load}
    for name, value in row.items():
        print(f"{name:16} {value:.3f}" if isinstance(value, float) else f"{name:16} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps([row], indent=2) + "\n")


if __name__ == "__main__":
    main()
