"""Confirmed configs over several teachers: intervals for new teachers, and the share of variance between teachers.

Seeds are nested in teachers: repetition r has the same teacher in every config, so paired differences have one teacher
each, and are grouped by it. `analysis.statistics.nested` describes the interval.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pyarrow as pa

from analysis.reading.trials import TEACHER_NUMBER, objective_measure, possible_range, trial_scores, within_reach
from analysis.statistics.estimates import Estimate, within_range
from analysis.statistics.nested import VarianceShare, nested_mean, variance_share
from trainables.display.numbers import counted
from trainables.spec.architectures import LAYERS_PATTERN
from trainables.spec.methods import METHOD_SPECS, method_spec


@dataclass(frozen=True)
class OverTeachers:
    """Mean over teachers and their seeds.

    Args:
        mean: mean with an interval for new teachers and seeds; n counts teachers.
        share: share of the variance between teachers; the rest is between seeds with one teacher.
    """

    mean: Estimate
    share: VarianceShare


def teachers_of(rows: pa.Table) -> dict[int, int]:
    """Return the number of each trial's teacher, by replicate; the first teacher for records of earlier versions.

    Args:
        rows: trials of one config.
    """
    replicates = rows["replicate"].to_pylist()
    if TEACHER_NUMBER not in rows.column_names:
        return dict.fromkeys(replicates, 0)
    return {each: number or 0 for each, number in zip(replicates, rows[TEACHER_NUMBER].to_pylist(), strict=True)}


def mean_over_teachers(rows: pa.Table) -> OverTeachers | None:
    """Average the test scores of a config over teachers; None for a single teacher, or a method without one.

    Args:
        rows: confirmed trials of one config.
    """
    if not _reads_teacher(rows):
        return None
    found = _nested(_scores(rows), teachers_of(rows))
    if found is None:
        return None
    return replace(found, mean=within_range(found.mean, *possible_range(objective_measure(rows))))


def difference_over_teachers(one: pa.Table, other: pa.Table) -> OverTeachers | None:
    """Average the difference of two configs on the test split over teachers, paired by seed.

    Args:
        one: confirmed trials of the first config.
        other: confirmed trials of the second config.

    Returns:
        First minus second. None for a single teacher, or if neither method has one.
    """
    if not (_reads_teacher(one) or _reads_teacher(other)):
        return None
    own, others = _scores(one), _scores(other)
    first, second = teachers_of(one), teachers_of(other)
    paired = {r: own[r] - others[r] for r in own.keys() & others.keys() if first[r] == second[r]}
    found = _nested(paired, first)
    return None if found is None else replace(found, mean=within_reach(found.mean, objective_measure(one)))


def share_in_words(share: VarianceShare) -> str:
    """Format the shares of variance between teachers and between seeds, with their n."""
    if math.isnan(share.between):
        return f"share of variance between teachers unknown ({share.method.partition(': ')[2]})"
    return (
        f"{share.between:.0%} of the variance between teachers and {1 - share.between:.0%} between seeds (interval of "
        f"the first {share.low:.0%} to {share.high:.0%}, {counted(share.groups, 'teacher')}, n = {share.n})"
    )


def _nested(scores: Mapping[int, float], teachers: Mapping[int, int]) -> OverTeachers | None:
    order = sorted(each for each in scores if math.isfinite(scores[each]))
    values, groups = [scores[each] for each in order], [teachers[each] for each in order]
    if len(set(groups)) < 2:
        return None
    return OverTeachers(nested_mean(values, groups), variance_share(values, groups))


def _scores(rows: pa.Table) -> dict[int, float]:
    return dict(zip(rows["replicate"].to_pylist(), trial_scores(rows, "test").tolist(), strict=True))


def _reads_teacher(rows: pa.Table) -> bool:
    """Return whether the trials of a config depend on a trained teacher."""
    if not rows.num_rows:
        return False
    first = {name: rows[name][0].as_py() for name in ("method", "student") if name in rows.column_names}
    begins_as_teacher = LAYERS_PATTERN.fullmatch(first.get("student") or "") is not None
    # A method that this version does not know may have a teacher.
    return begins_as_teacher or first["method"] not in METHOD_SPECS or method_spec(first["method"]).needs_teacher
