"""Training cost of each config in a study, also as a ratio to cross-entropy on the same student.

FLOPs are exact. The cross-entropy cost is the student's own part of a training step in the study's `ce` config. Without
a `ce` config, it is the student's part of the method's own training step. The two are equal, except for a method with
two passes through the student's layers.

A teacher with stored outputs costs its passes over the train split. This cost is divided by the number of training
examples served from the stored outputs, over all trials in the study with this teacher. The cost is charged even if the
outputs were already stored, so a study's cost does not depend on earlier runs. Each teacher is charged separately, so a
method with its own teacher pays alone for this teacher's passes. Evaluation is not training: the evaluation FLOPs and
the passes over the validation split are not counted.

Times are medians: seconds per step over the epochs in a trial, then over the config's trials. The ratio is to the same
median for the study's own `ce` on fresh seeds, either a control or one of the compared methods. Times were measured on
the machine under its other load at that time. For a packed trial, the time is a share of the pack time. Neither number
contains the teacher's training cost; `cost/teacher_training_seconds` records it if the teacher was trained here.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, Final, NamedTuple, TypeAlias

import pyarrow as pa

from analysis.reading.trials import CONFIRM, REPEATED, SPLIT_NUMBER, TEACHER_NUMBER, StudyRecords, select
from trainables.spec.methods import METHOD_SPECS, method_spec
from trainables.spec.modality import is_text

CE: Final = "ce"
_TEACHER_FIELDS: Final = (
    "dataset", "split_seed", "teacher", "teacher_recipe", "teacher_epochs", "teacher_digest", "teacher_seed",
)  # fmt: skip
_Teacher: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True)
class ConfigCost:
    """Training cost of a config; None for values missing in the trial records.

    Args:
        parameters: number of trainable parameters in total.
        student_parameters: trainable student parameters.
        adapter_parameters: trainable adapter parameters.
        other_parameters: trainable parameters in the method's own modules, in peers, and in a trainable teacher.
        step_flops: FLOPs per example and step, including the shared teacher passes.
        shared_teacher_passes: full teacher passes per example included in `step_flops`; 0 if the teacher runs live or
            is not needed.
        flops_to_ce: `step_flops` over the cross-entropy FLOPs on the same student.
        seconds_per_step: median seconds per step, as defined in this module.
        seconds_to_ce: `seconds_per_step` over the same value for the study's `ce`; None without a `ce` config.
        n: number of trials on fresh seeds with a measured time.
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


def config_costs(records: StudyRecords) -> dict[str, ConfigCost]:
    """Return the costs of configs repeated or confirmed on fresh seeds, by `config_id`."""
    trials = _scalar_columns(records.trials)
    rows = select(trials, stages=[*REPEATED, CONFIRM]).to_pylist()
    times = _seconds_per_step(records.epochs)
    by_config: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_config.setdefault(row["config_id"], []).append(row)
    shared = _shared_passes(trials)
    of_ce = [row for row in rows if row["method"] == CE]
    known = {row["student"]: _student_flops(row) for row in of_ce if row.get("cost/step_flops") is not None}
    ce = _CrossEntropy(_median_time(of_ce, times), known)
    return {config_id: _cost(own, times, shared, ce) for config_id, own in by_config.items()}


def _scalar_columns(trials: pa.Table) -> pa.Table:
    """Keep config and costs. Predictions and calibration bins would take most of the time of a conversion."""
    return trials.select([name for name in trials.column_names if "/" not in name or name.startswith("cost/")])


class _CrossEntropy(NamedTuple):
    """Cost of the study's own cross-entropy config.

    Args:
        seconds: seconds per step, for the study's single student; None if unknown.
        flops: FLOPs per step and example, by student.
    """

    seconds: float | None
    flops: Mapping[str, float]


def _student_flops(row: Mapping[str, Any]) -> float:
    return float(row["cost/forward_flops_student"] + row["cost/backward_flops_student"])


def _cost(
    rows: Sequence[Mapping[str, Any]],
    times: Mapping[str, float],
    shared: Mapping[_Teacher, float],
    ce: _CrossEntropy,
) -> ConfigCost:
    # Studies begun by an earlier version contain trials without recorded FLOPs.
    first = next((row for row in rows if row.get("cost/step_flops") is not None), rows[0])
    step, passes = first.get("cost/step_flops"), None
    to_ce = None
    if step is not None:
        teacher = first["cost/teacher_pass_flops"]
        teachers = dict.fromkeys(_teacher_of(row) for row in rows if _stored_passes(row))
        passes = fmean(shared.get(each, 0.0) for each in teachers) if _stored_passes(first) else 0.0
        step += passes * (teacher or 0.0)
        to_ce = step / ce.flops.get(first["student"], _student_flops(first))
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
        seconds_to_ce=seconds / ce.seconds if seconds is not None and ce.seconds else None,
        n=sum(row["trial_id"] in times for row in rows),
    )


def times(ratio: float | None) -> str:
    """Format a ratio with three significant digits from 10 on, else with two decimals."""
    return "" if ratio is None else f"{ratio:.3g}" if ratio >= 10 else f"{ratio:.2f}"


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _stored_passes(row: Mapping[str, Any]) -> int:
    """Return the number of stored teacher passes over the train split used by a trial; 0 if none."""
    told = row.get("cost/stored_passes")
    if told is not None:
        return int(told)
    # Earlier versions did not record this number. Each epoch used a new view unless there were fewer views, as for
    # text.
    if row.get("cost/teacher_pass_flops") is None or not row.get("cost/stored_bytes"):
        return 0
    return 1 if is_text(row.get("dataset") or "") else int(row.get("epochs_planned") or row["epochs"])


def _teacher_of(row: Mapping[str, Any]) -> _Teacher:
    """Return a key for the stored teacher outputs used by a trial; equal outputs are stored once."""
    method = row["method"]
    own = method_spec(method).teacher_fields if method in METHOD_SPECS else ()
    # Null in records from earlier versions.
    numbers = [row.get(name) or 0 for name in (TEACHER_NUMBER, SPLIT_NUMBER)]
    apart = (method, row.get("student"), *(row.get(name) for name in sorted(own))) if own else ()
    return (*(row.get(name) for name in _TEACHER_FIELDS), *numbers, *apart)


def _shared_passes(trials: pa.Table) -> dict[_Teacher, float]:
    """Return each teacher's passes with stored outputs, per training example served."""
    passes: dict[_Teacher, float] = defaultdict(float)
    served: dict[_Teacher, float] = defaultdict(float)
    for row in trials.to_pylist():
        if _stored_passes(row):
            teacher = _teacher_of(row)
            passes[teacher] = max(passes[teacher], _stored_passes(row) * row["cost/train_examples"])
            served[teacher] += row["cost/train_examples"] * row["epochs"]
    return {teacher: passes[teacher] / examples for teacher, examples in served.items() if examples}


def _seconds_per_step(epochs: pa.Table) -> dict[str, float]:
    """Return the median seconds per step over all epochs by trial, for trials with recorded times."""
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
