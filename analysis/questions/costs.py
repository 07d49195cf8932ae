"""What each config of a study cost to train, also as a ratio to cross-entropy on the same student.

FLOPs are exact. What cross-entropy takes is the student's own part of a step of the study's `ce` or, where it has none,
of the method's own: the same, but for a method that runs the student's layers twice.
A teacher whose outputs are stored costs what its passes over the train split cost, shared out over what they served:
the examples that the study's trials with that teacher's stored outputs trained on. It does so whether this study
stored them or found them stored, so that what a study costs does not depend on what ran before it; and each teacher by
itself, so that a method with a teacher of its own carries its passes alone. Evaluation is no training: neither its
FLOPs nor any pass on the validation split is counted.

Times are medians: of a trial its epochs' seconds per step, of a config its trials', and the ratio is that to the same
of the study's own `ce` on fresh seeds, a control or one of the methods that it compares. They say what the machine
took, with whatever else ran on it; a packed trial's are its share of the pack's. What training the teacher took is in
neither: `cost/teacher_training_seconds` says it where it was trained here.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final, NamedTuple, TypeAlias

import pyarrow as pa

from analysis.reading.trials import CONFIRM, REPEATED, StudyRecords, select
from trainables.spec.methods import METHOD_SPECS, method_spec
from trainables.spec.modality import is_text

CE: Final = "ce"
_TEACHER_FIELDS: Final = (
    "dataset", "split_seed", "teacher", "teacher_recipe", "teacher_epochs", "teacher_digest", "teacher_seed",
)  # fmt: skip
_Teacher: TypeAlias = tuple[Any, ...]


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
        n: trials on fresh seeds that the times are of.
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
    """The costs of a study's configs that ran on fresh seeds, repeated or confirmed, by `config_id`."""
    rows = select(records.trials, stages=[*REPEATED, CONFIRM]).to_pylist()
    times = _seconds_per_step(records.epochs)
    by_config: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_config.setdefault(row["config_id"], []).append(row)
    shared = _shared_passes(records.trials)
    of_ce = [row for row in rows if row["method"] == CE]
    known = {row["student"]: _student_flops(row) for row in of_ce if row.get("cost/step_flops") is not None}
    ce = _CrossEntropy(_median_time(of_ce, times), known)
    return {config_id: _cost(own, times, shared, ce) for config_id, own in by_config.items()}


class _CrossEntropy(NamedTuple):
    """The study's own.

    Args:
        seconds: a step, of the one student that a study has.
        flops: a step and example, by student.
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
    # A study that an earlier version began has trials of which it is not known.
    first = next((row for row in rows if row.get("cost/step_flops") is not None), rows[0])
    step, passes = first.get("cost/step_flops"), None
    to_ce = None
    if step is not None:
        teacher = first["cost/teacher_pass_flops"]
        passes = shared.get(_teacher_of(first), 0.0) if _stored_passes(first) else 0.0
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
    """A ratio, in three digits at most."""
    return "" if ratio is None else f"{ratio:.3g}" if ratio >= 10 else f"{ratio:.2f}"


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _stored_passes(row: Mapping[str, Any]) -> int:
    """Passes over the train split that a trial learnt from as they were stored; 0 if from none."""
    told = row.get("cost/stored_passes")
    if told is not None:
        return int(told)
    # Earlier versions did not record it. An epoch shows a view that none before showed, unless they are fewer.
    if row.get("cost/teacher_pass_flops") is None or not row.get("cost/stored_bytes"):
        return 0
    return 1 if is_text(row.get("dataset") or "") else int(row.get("epochs_planned") or row["epochs"])


def _teacher_of(row: Mapping[str, Any]) -> _Teacher:
    """Whose outputs a trial learns from: equal ones are stored once."""
    method = row["method"]
    own = method_spec(method).teacher_fields if method in METHOD_SPECS else ()
    apart = (method, row.get("student"), *(row.get(name) for name in sorted(own))) if own else ()
    return tuple(row.get(name) for name in _TEACHER_FIELDS) + apart


def _shared_passes(trials: pa.Table) -> dict[_Teacher, float]:
    """Of each teacher with stored outputs, its passes per example that they served."""
    passes: dict[_Teacher, float] = defaultdict(float)
    served: dict[_Teacher, float] = defaultdict(float)
    for row in trials.to_pylist():
        if _stored_passes(row):
            teacher = _teacher_of(row)
            passes[teacher] = max(passes[teacher], _stored_passes(row) * row["cost/train_examples"])
            served[teacher] += row["cost/train_examples"] * row["epochs"]
    return {teacher: passes[teacher] / examples for teacher, examples in served.items() if examples}


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
