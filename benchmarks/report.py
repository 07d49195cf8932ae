"""Time of the report command for a study of 460 trials, relative to another checkout of this project.

The two versions write the same report in turn, each in a new process, as a user would. The first round is not counted:
it fills the file cache. The result has the wall time and the processor time of all processes, with medians over rounds.

    python benchmarks/report.py [--against CHECKOUT] [--rounds 7] [--study FOLDER] [--json PATH]
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parents[1]
STUDY = HERE / "analysis" / "examples" / "fashion-method-tuned"


def measure(checkout: Path, python: Path, study: Path, out: Path) -> tuple[float, float]:
    """Return the wall time and the processor time of a report, in seconds."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [str(python), "-m", "analysis.report", study.name, "--output-dir", str(study.parent), "--out", str(out)]
    subprocess.run(command, cwd=checkout, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="checkout to compare with; its .venv is used if it has one")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--study", type=Path, default=STUDY)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error(f"--rounds {arguments.rounds}: give at least 1")
    arms = {"here": (HERE, Path(sys.executable))}
    if arguments.against is not None:
        other = arguments.against.resolve()
        if not (other / "analysis" / "report" / "__main__.py").is_file():
            parser.error(f"--against {arguments.against}: this folder is no checkout of the project")
        own = other / ".venv" / "bin" / "python"
        arms["against"] = (other, own if own.exists() else Path(sys.executable))
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in arms}
    load = os.getloadavg()[0]
    folder = Path(tempfile.mkdtemp(prefix="report-"))
    try:
        for number in range(arguments.rounds + 1):
            order = list(arms) if number % 2 else list(arms)[::-1]
            for name in order:
                found = measure(*arms[name], arguments.study.resolve(), folder / f"{name}.html")
                if number:
                    rows[name].append(found)
    finally:
        shutil.rmtree(folder)
    for place, what in enumerate(("wall", "processor")):
        medians = {name: statistics.median(each[place] for each in found) for name, found in rows.items()}
        text = "  ".join(f"{name} {value:.2f} s" for name, value in medians.items())
        if len(arms) > 1:
            ratios = [own[place] / other[place] for own, other in zip(rows["here"], rows["against"], strict=True)]
            text += f"  ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{what} time: {text}  n = {arguments.rounds}, load {load:.1f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"load_before": load, **rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
