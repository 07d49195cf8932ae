"""What each config of a study cost to train, also as a ratio to cross-entropy on the same student.

FLOPs are exact, and their ratio needs no other trial: what cross-entropy takes is the student's own part of the step.
A teacher whose outputs are stored costs what its passes cost, shared out over what they served: per example that any
of the study's trials with stored outputs trained on, passes were made (ahead of the trials and in them, those on the
validation split too) over examples trained on. Rows that an earlier study stored were not made by this one and cost it
nothing. Evaluation is no training: neither its FLOPs nor a live teacher's validation passes are counted.

Times are medians: of a trial its epochs' seconds per step, of a config its trials', and the ratio is that to the same
of the study's own repetitions of `ce`, a control or one of the methods that it compares. They say what the machine
took, with whatever else ran on it; a packed trial's are its share of the pack's. What training the teacher took is in
neither: `cost/teacher_training_seconds` says it where it was trained here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

import pyarrow as pa

from analysis.trials import REPEATED, StudyRecords, select

CE: Final = "ce"


@dataclass(frozen=True)
class ConfigCost:
    """What a config cost; None for what its trials' records do not tell.

    Args:
        parameters: numbers that learn, all of them.
        student_parameters: of the student.
        adapter_parameters: of the adapter.
        other_parameters: of the method's own parts, of peers, and of a teacher that learns.
        step_flops: per example and step, the teacher's shared passes included.
        shared_teacher_passes: of those, a teacher's whole passes per example; 0 where it is live or not needed.
        flops_to_ce: `step_flops` over what cross-entropy on the same student takes.
        seconds_per_step: see this module.
        seconds_to_ce: the same over that of the study's `ce`; None where it has none.
        n: trials that the times are of.
    """

    parameters: int | None
    student_parameters: int | None
    adapter_parameters: int | None
    other_parameters: int | None
    step_flops: float | None
    shared_teacher_passes: float | None
    flops_to_ce: float | None
    seconds_per_step: float | None
    seconds_to_ce: float | None
    n: int


def config_costs(records: StudyRecords, *, teacher_forwards_ahead: int = 0) -> dict[str, ConfigCost]:
    """The costs of a study's repeated configs, by `config_id`.

    Args:
        records: the study's.
        teacher_forwards_ahead: samples that went through the teacher ahead of the trials, to store its outputs.
    """
    rows = select(records.trials, stages=REPEATED).to_pylist()
    times = _seconds_per_step(records.epochs)
    by_config: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_config.setdefault(row["config_id"], []).append(row)
    shared = _shared_passes(records, teacher_forwards_ahead)
    ce = _median_time([row for row in rows if row["method"] == CE], times)
    return {config_id: _cost(own, times, shared, ce) for config_id, own in by_config.items()}


def _cost(rows: Sequence[Mapping[str, Any]], times: Mapping[str, float], shared: float, ce: float | None) -> ConfigCost:
    # A study that an earlier version began has trials of which it is not known.
    first = next((row for row in rows if row.get("cost/step_flops") is not None), rows[0])
    step, passes = first.get("cost/step_flops"), None
    to_ce = None
    if step is not None:
        teacher = first["cost/teacher_pass_flops"]
        passes = shared if teacher is not None and first["cost/stored_bytes"] else 0.0
        step += passes * (teacher or 0.0)
        to_ce = step / (first["cost/forward_flops_student"] + first["cost/backward_flops_student"])
    seconds = _median_time(rows, times)
    return ConfigCost(
        parameters=_whole(first.get("cost/trainable_parameters")),
        student_parameters=_whole(first.get("cost/student_parameters")),
        adapter_parameters=_whole(first.get("cost/adapter_parameters")),
        other_parameters=_whole(first.get("cost/other_parameters")),
        step_flops=step,
        shared_teacher_passes=passes,
        flops_to_ce=to_ce,
        seconds_per_step=seconds,
        seconds_to_ce=seconds / ce if seconds is not None and ce else None,
        n=sum(row["trial_id"] in times for row in rows),
    )


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _shared_passes(records: StudyRecords, ahead: int) -> float:
    """Passes of the teacher for stored outputs, over the examples that they served."""
    stored = {row["trial_id"]: row for row in records.trials.to_pylist() if row.get("cost/stored_bytes")}
    forwards = zip(*(records.epochs[name].to_pylist() for name in ("trial_id", "cost/teacher_forwards")), strict=True)
    passes = ahead + sum(count or 0 for trial_id, count in forwards if trial_id in stored)
    taught = [row for row in stored.values() if row["cost/teacher_pass_flops"] is not None]
    served = sum(row["cost/train_examples"] * row["epochs"] for row in taught)
    return float(passes / served) if served else 0.0


def _seconds_per_step(epochs: pa.Table) -> dict[str, float]:
    """Of each trial that tells, the median of its epochs."""
    seconds: dict[str, list[float]] = {}
    for trial_id, each in zip(
        *(epochs[name].to_pylist() for name in ("trial_id", "cost/seconds_per_step")), strict=True
    ):
        if each is not None:
            seconds.setdefault(trial_id, []).append(each)
    return {trial_id: median(each) for trial_id, each in seconds.items()}


def _median_time(rows: Sequence[Mapping[str, Any]], times: Mapping[str, float]) -> float | None:
    told = [times[row["trial_id"]] for row in rows if row["trial_id"] in times]
    return median(told) if told else None
