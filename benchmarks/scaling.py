"""Throughput growth of a study with the number of concurrent trials and with the number of nodes.

`machine`: real trials (PESF-KD on digits, stored teacher outputs) on this machine, 1, 2, ... at once, each with an
equal share of the cores. `nodes`: simulated nodes (`ray.cluster_utils.Cluster`, all on this machine) with some slots
each. Trials on them wait instead of computing, as for an accelerator. Losses are then due to the driver, Ray, the
journal, the records and MLflow.

Throughput is the number of trials ended per second while all slots are in use: after every slot has ended one, and
before the last trials leave slots empty. This leaves out process start, which happens once per study. For `machine`,
efficiency is throughput divided by single-slot throughput and by the number of slots (at most the number of cores). For
`nodes`, efficiency is throughput divided by the end rate for trials that only wait.

    python benchmarks/scaling.py [--quick] [--part machine|nodes|both] [--runs N] [--json PATH]
"""

import argparse
import io
import json
import os
import shutil
import statistics
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

sys.path[0] = str(Path(__file__).parents[1])  # this script's folder has a study.py, which would hide the package

# isort: split
from study.running import (
    cluster,  # sets Ray's environment before Ray is imported
    runner,  # sets Ray's environment before Ray is imported
)

# isort: split
from ray.cluster_utils import Cluster

from benchmarks.overhead import IdleTrainable
from study.cli.progress import StudyProgress
from study.plan.plan import StudyPlan
from study.plan.resolve import resolve_plan
from trainables.tune import tasks
from trainables.tune import trainable as distillation

SLOTS_PER_NODE = 4
WAITING_EPOCHS = 5
SECONDS_PER_EPOCH = 0.4


class WaitingTrainable(IdleTrainable):
    """Trainable that waits for each epoch as if a device computed it."""

    seconds_per_epoch = SECONDS_PER_EPOCH


def make_plan(folder: Path, **fields: Any) -> StudyPlan:
    """Return a plan with one replicate and no controls, so nearly all trials are alike."""
    plan = resolve_plan(
        {
            "name": "scaling", "space": "adapter_width", "promising": 1, "replicates": 1, "controls": (),
            "sampler": "random", "output_dir": folder, "tracking_uri": f"sqlite:///{folder}/mlflow.db", **fields,
        }
    )  # fmt: skip
    plan.directory.mkdir(parents=True)
    return plan


def throughput(plan: StudyPlan, slots: int) -> float:
    """Return a study's trials per second while all slots are in use."""
    with redirect_stdout(io.StringIO()):  # Tune prints a table regardless of settings
        run, tracker = runner.run_study(plan, progress=StudyProgress(plan, quiet=True), command="", versions={})
    error = tracker.finish("FINISHED")
    assert error is None, error
    entries = run.ledger.in_stage("search")
    finished = [entry for entry in entries if entry.status == "finished"]
    assert len(finished) == plan.trials, f"{len(finished)} of {plan.trials} trials finished"
    ends = sorted(entry.ended for entry in finished)
    # The last trials leave slots empty, so only the time with all slots in use counts. Trials end in waves. An interval
    # without a whole number of waves would be misleading.
    counted = ends[slots - 1 : len(ends) - slots]
    return (len(counted) - 1) / (counted[-1] - counted[0])


def on_this_machine(concurrent: int, trials: int, epochs: int, cores: int) -> float:
    """Return the throughput with real trials."""
    folder = Path(tempfile.mkdtemp(prefix="scaling-"))
    share = min(1.0, cores / concurrent)
    plan = make_plan(
        folder, trials=trials, base={"epochs": epochs}, max_concurrent=concurrent, cpus_per_trial=share,
        teacher_outputs="stored",
    )  # fmt: skip
    try:
        return throughput(plan, concurrent)
    finally:
        shutil.rmtree(folder)


def on_simulated_nodes(nodes: int, trials_per_slot: int) -> float:
    """Return the throughput with waiting trials."""
    slots = nodes * SLOTS_PER_NODE
    folder = Path(tempfile.mkdtemp(prefix="scaling-"))
    simulated = Cluster(initialize_head=True, head_node_args={"num_cpus": SLOTS_PER_NODE, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            simulated.add_node(num_cpus=SLOTS_PER_NODE)
        plan = make_plan(
            folder, trials=slots * trials_per_slot, base={"epochs": WAITING_EPOCHS}, address=simulated.address,
            teacher_outputs="live",
        )  # fmt: skip
        with (
            mock.patch.object(distillation, "DistillationTrainable", WaitingTrainable),
            mock.patch.object(runner, "prepare_study_teacher", return_value=tasks.PreparedTeacher("none", [])),
        ):
            return throughput(plan, slots)
    finally:
        cluster.stop_ray()
        simulated.shutdown()
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few trials, once")
    parser.add_argument("--part", choices=("machine", "nodes", "both"), default="both")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    runs = 1 if arguments.quick else arguments.runs
    concurrent = [1, cores] if arguments.quick else sorted({1, cores, 2 * cores})
    nodes = [1, 2] if arguments.quick else [1, 2, 4]
    measured: dict[tuple[str, int], list[float]] = {}
    loads: list[float] = []

    def note(part: str, size: int, rate: float) -> None:
        measured.setdefault((part, size), []).append(rate)
        print(f"  {part} {size}: {rate:.2f} trials/s", flush=True)

    for _ in range(runs):  # all sizes in turn, so other load on the machine affects all of them
        loads.append(os.getloadavg()[0])
        if arguments.part != "nodes":
            for number in concurrent:
                trials, epochs = (12, 3) if arguments.quick else (16 * number, 15)
                note("machine", number, on_this_machine(number, trials, epochs, cores))
        if arguments.part != "machine":
            for number in nodes:
                note("nodes", number, on_simulated_nodes(number, 3 if arguments.quick else 8))
    rows = [
        _row(part, number, rates, measured, cores) | {"load": max(loads)} for (part, number), rates in measured.items()
    ]
    print(f"{'part':8} {'size':>4} {'slots':>5} {'trials/s':>9} {'efficiency':>10} {'n':>3} {'load':>5}")
    for row in rows:
        print(
            f"{row['part']:8} {row['size']:4} {row['slots']:5} {row['trials_per_second']:9.2f} "
            f"{row['efficiency']:10.2f} {row['n']:3} {row['load']:5.1f}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


def _row(
    part: str, size: int, rates: list[float], measured: dict[tuple[str, int], list[float]], cores: int
) -> dict[str, Any]:
    if part == "machine":
        slots = size
        efficiencies = [
            rate / (one * min(size, cores)) for rate, one in zip(rates, measured["machine", 1], strict=True)
        ]
    else:
        slots = size * SLOTS_PER_NODE
        efficiencies = [rate * WAITING_EPOCHS * SECONDS_PER_EPOCH / slots for rate in rates]
    return {
        "part": part, "size": size, "slots": slots, "trials_per_second": statistics.median(rates),
        "efficiency": statistics.median(efficiencies), "n": len(rates),
    }  # fmt: skip


if __name__ == "__main__":
    main()
