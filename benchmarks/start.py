"""The default study from the command to the prompt, relative to an earlier version and to a loop written by hand.

- `start`: the default study. Wall time and processor time of all processes, and the time to the first finished trial.
- `rate`: trials per second once running, for a study of many random trials on the digits.

Arms: `now`, `now, --pack 1`; `today`, an earlier checkout given by --today; and `plain loop`
(`plain_loop.py`) in as many processes as cores. The arms take turns. Each ratio is the median over the runs of the
ratio within a run. On a busy machine, the ratio of processor times is the reliable one.

    python benchmarks/start.py [--quick] [--part start|rate|all] [--runs N] [--today FOLDER] [--json PATH]
"""

import argparse
import ctypes
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parents[1]
CORES = len(os.sched_getaffinity(0))
PR_SET_CHILD_SUBREAPER = 36
NOW, TODAY, LOOP = "now", "today", "plain loop"


class Run(NamedTuple):
    """One run of an arm.

    Args:
        seconds: wall time from the command to the prompt.
        cpu_seconds: processor time of all processes.
        first_seconds: wall time from the command to the end of the first trial.
        trial_seconds: wall time per trial from the start of the first trial to the end of the last one.
        trials: number of trials.
        load: load average before.
    """

    seconds: float
    cpu_seconds: float
    first_seconds: float
    trial_seconds: float
    trials: int
    load: float


class TreeClock:
    """Processor time of all descendants of this process, sampled, because some processes are never waited for."""

    def __init__(self) -> None:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)  # orphans stay descendants
        self._ended = threading.Event()
        self._by_process: dict[tuple[int, str], float] = {}
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> "TreeClock":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def seconds(self) -> float:
        """Seconds up to now."""
        return sum(self._by_process.values())

    def _sample(self) -> None:
        while not self._ended.wait(0.05):
            self._look()

    def _look(self) -> None:
        parents: dict[int, int] = {}
        found: dict[int, tuple[str, float]] = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                words = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            number = int(path.parent.name)
            parents[number] = int(words[1])
            found[number] = words[19], (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
        inside = {os.getpid()}
        while grown := {number for number, parent in parents.items() if parent in inside} - inside:
            inside |= grown
        for number in inside - {os.getpid()}:
            start, seconds = found[number]
            self._by_process[number, start] = seconds


def measured(command: list[str], cwd: Path, times: Path, read: "str") -> Run:
    """Run a command, and read the times of the trials."""
    load = os.getloadavg()[0]
    began, clock = time.time(), TreeClock()
    with clock:
        done = subprocess.run(
            command, cwd=cwd, check=False, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(cwd)}
        )
        seconds = time.time() - began
        _reap()
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    spans = json.loads(times.read_text()) if read == "loop" else spans_of(times)
    first, last = min(start for start, _ in spans), max(end for _, end in spans)
    return Run(
        seconds, clock.seconds, min(end for _, end in spans) - began, (last - first) / len(spans), len(spans), load
    )  # fmt: skip


def spans_of(journal: Path) -> list[tuple[float, float]]:
    """Return the start and end of each trial, from a study's journal."""
    starts, ends = {}, {}
    for line in journal.read_text().splitlines():
        event = json.loads(line[line.index("{") :])
        if event["event"] == "trial":
            starts[event["trial_id"]] = event["started"]
        elif event["event"] == "end":
            ends[event["trial_id"]] = event["time"]
    return [(starts[name], end) for name, end in ends.items()]


def _reap() -> None:
    """Wait for orphans of the command, such as servers that Ray is ending."""
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def study(folder: Path, cwd: Path, flags: list[str]) -> Run:
    """Run a study in a new output folder, so the teacher is trained too."""
    output = Path(tempfile.mkdtemp(dir=folder))
    command = [
        sys.executable,
        "-m",
        "study.launch",
        "--output-dir",
        str(output),
        "--name",
        "default",
        "--quiet",
        *flags,
    ]
    try:
        return measured(command, cwd, output / "default" / "journal.jsonl", "study")
    finally:
        shutil.rmtree(output)


def loop(folder: Path, flags: list[str]) -> Run:
    """Run the loop in a new folder."""
    output = Path(tempfile.mkdtemp(dir=folder))
    command = [sys.executable, str(HERE / "benchmarks" / "plain_loop.py"), str(output), "--processes", str(CORES)]
    try:
        return measured([*command, *flags], HERE, output / "trials.json", "loop")
    finally:
        shutil.rmtree(output)


def sizes(part: str, *, quick: bool) -> tuple[list[str], list[str]]:
    """Return the flags of a study and of the same loop."""
    if part == "start":
        numbers = ["--trials", "2", "--promising", "1", "--replicates", "1", "--epochs", "2"] if quick else []
        shared = [*numbers, *(["--teacher-epochs", "1"] if quick else [])]
        return ["--space", "adapter_width", *shared], shared
    trials = "4" if quick else "200"
    shared = ["--trials", trials, "--sampler", "random", "--promising", "1", "--replicates", "1",
              *(["--epochs", "2", "--teacher-epochs", "1"] if quick else [])]  # fmt: skip
    return ["--space", "adapter_width", *shared], shared


def run_part(part: str, runs: int, today: Path | None, *, quick: bool) -> list[dict]:
    """Run all arms in turn and return one row per arm."""
    of_study, of_loop = sizes(part, quick=quick)
    with tempfile.TemporaryDirectory(prefix="start-") as name:
        folder = Path(name)
        arms = {
            NOW: lambda: study(folder, HERE, of_study),
            "now, --pack 1": lambda: study(folder, HERE, [*of_study, "--pack", "1"]),
            LOOP: lambda: loop(folder, of_loop),
        }
        if today is not None:
            arms[TODAY] = lambda: study(folder, today, of_study)
        found: dict[str, list[Run]] = {arm: [] for arm in arms}
        for number, (arm, measure) in itertools.product(range(runs), arms.items()):
            run = measure()
            found[arm].append(run)
            print(f"  run {number + 1} {arm:16} {run.seconds:7.1f} s  {run.cpu_seconds:7.1f} s of processors  "
                  f"first trial {run.first_seconds:6.1f} s  (load before {run.load:.1f})", flush=True)  # fmt: skip
    return [row(part, arm, found) for arm in found]


def row(part: str, arm: str, found: dict[str, list[Run]]) -> dict:
    """Return medians of an arm, and ratios of the other arms' measures to `now`."""
    ratios = {
        name: statistics.median(
            getattr(now, name) / getattr(other, name) for now, other in zip(found[NOW], found[arm], strict=True)
        )
        for name in ("seconds", "cpu_seconds", "first_seconds", "trial_seconds")
    }
    medians = {name: statistics.median(getattr(run, name) for run in found[arm]) for name in Run._fields}
    return {
        "part": part, "arm": arm, "n": len(found[arm]), **medians,
        **{f"now_over_this_{name}": ratio for name, ratio in ratios.items()},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny studies, once")
    parser.add_argument("--part", choices=("start", "rate", "all"), default="all")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--today", type=Path, help="checkout of an earlier version, as another arm")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    runs = 1 if arguments.quick else arguments.runs
    parts = ("start", "rate") if arguments.part == "all" else (arguments.part,)
    today = None if arguments.today is None else arguments.today.absolute()
    rows = [each for part in parts for each in run_part(part, runs, today, quick=arguments.quick)]
    for each in rows:
        print("  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in each.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
