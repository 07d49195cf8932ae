"""Confirmed configs over several teachers or splits: intervals for new ones, and variance shares.

Seeds are nested in teachers, and teachers in their training splits. Repetition r has the same teacher and split in
every config, so a paired difference has a single teacher and a single split. With several splits, the interval is over
splits, because results with one split are not independent. `analysis.statistics.nested` describes the interval.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pyarrow as pa

from analysis.reading.scores import scores_by_replicate
from analysis.reading.trials import (
    SPLIT_NUMBER,
    TEACHER_NUMBER,
    objective_measure,
    within_possible,
    within_reach,
)
from analysis.statistics.estimates import Estimate
from analysis.statistics.nested import FEW_GROUPS, VarianceShare, nested_mean, two_shares, variance_share
from trainables.display.numbers import counted, format_difference
from trainables.spec.architectures import LAYERS_PATTERN
from trainables.spec.methods import METHOD_SPECS, method_spec

Unit = Literal["teacher", "split"]


@dataclass(frozen=True)
class BeyondSeeds:
    """Mean over teachers or splits, and over their seeds.

    Args:
        unit: independent unit for the interval.
        mean: mean with an interval for new teachers or splits; n counts them.
        share: variance share between them, and between teachers within splits if the data separate the two.
    """

    unit: Unit
    mean: Estimate
    share: VarianceShare

    @property
    def over(self) -> str:
        """Teachers or splits, in words, as used for the mean."""
        return "teachers and seeds" if self.unit == "teacher" else "splits, teachers and seeds"


def cells_of(rows: pa.Table) -> dict[int, tuple[int, int]]:
    """Return the split number and the teacher number of each trial, by replicate; 0 in records from earlier versions.

    Args:
        rows: trials of a single config.
    """
    replicates = rows["replicate"].to_pylist()
    splits, teachers = (
        [number or 0 for number in rows[name].to_pylist()] if name in rows.column_names else [0] * len(replicates)
        for name in (SPLIT_NUMBER, TEACHER_NUMBER)
    )
    return dict(zip(replicates, zip(splits, teachers, strict=True), strict=True))


def mean_beyond_seeds(rows: pa.Table) -> BeyondSeeds | None:
    """Average a config's test scores over teachers or splits.

    Args:
        rows: confirmed trials of one config.

    Returns:
        None for a single split and a single teacher, or for a method without a teacher.
    """
    found = _nested(scores_by_replicate(rows, "test"), cells_of(rows), reads_teacher=_reads_teacher(rows))
    if found is None:
        return None
    return replace(found, mean=within_possible(found.mean, objective_measure(rows)))


def difference_beyond_seeds(one: pa.Table, other: pa.Table) -> BeyondSeeds | None:
    """Average the test split difference between two configs over teachers or splits, paired by seed.

    Args:
        one: confirmed trials of the first config.
        other: confirmed trials of the second config.

    Returns:
        First minus second. None for a single split and a single teacher, or if neither method has a teacher.
    """
    own, others = scores_by_replicate(one, "test"), scores_by_replicate(other, "test")
    first, second = cells_of(one), cells_of(other)
    paired = {r: own[r] - others[r] for r in own.keys() & others.keys() if first[r] == second[r]}
    found = _nested(paired, first, reads_teacher=_reads_teacher(one) or _reads_teacher(other))
    return None if found is None else replace(found, mean=within_reach(found.mean, objective_measure(one)))


def share_in_words(found: BeyondSeeds) -> str:
    """Format the variance shares between splits, teachers and seeds, with n."""
    share, unit = found.share, found.unit
    if math.isnan(share.between):
        return f"share of variance between {unit}s unknown ({share.method.partition(': ')[2]})"
    inner = "" if share.inner is None else f", {share.inner:.0%} between teachers of a split"
    interval = "" if math.isnan(share.low) else f"interval of the first {share.low:.0%} to {share.high:.0%}, "
    return (
        f"{share.between:.0%} of the variance between {unit}s{inner} and {share.rest:.0%} between seeds ({interval}"
        f"{counted(share.groups, unit)}, n = {share.n})"
    )


def beyond_seeds_in_words(found: Sequence[tuple[str, BeyondSeeds]]) -> list[str]:
    """Describe the intervals over teachers or splits, the covered population, and the variance shares.

    Args:
        found: names of differences, such as `dkd minus kd`, with the differences; an empty list gives no text.
    """
    if not found:
        return []
    pairs = "; ".join(f"{name} {format_difference(each.mean)}, {share_in_words(each)}" for name, each in found)
    number, unit = min((each.mean.n, each.unit) for _, each in found)
    few = (
        f" {number} {unit}s are few, so these intervals are wide; {FEW_GROUPS} or more would narrow them."
        if number < FEW_GROUPS
        else ""
    )
    new = (
        "new teachers trained alike" if unit == "teacher" else "new splits into train and validation, and new teachers"
    )
    below = "their seeds" if unit == "teacher" else "their teachers and seeds"
    return [
        f"Over {counted(number, unit)} and {below}, for {new}: {pairs}.{few} The other intervals take repetitions as "
        f"independent and hold for these {unit}s."
    ]


def _nested(
    scores: Mapping[int, float], cells: Mapping[int, tuple[int, int]], *, reads_teacher: bool
) -> BeyondSeeds | None:
    order = sorted(each for each in scores if math.isfinite(scores[each]))
    values = [scores[each] for each in order]
    splits, teachers = [cells[each][0] for each in order], [cells[each][1] for each in order]
    if len(set(splits)) > 1:
        share = two_shares(values, splits, teachers) if reads_teacher else variance_share(values, splits)
        return BeyondSeeds("split", nested_mean(values, splits, unit="split"), share)
    if not reads_teacher or len(set(teachers)) < 2:
        return None
    return BeyondSeeds("teacher", nested_mean(values, teachers), variance_share(values, teachers))


def _reads_teacher(rows: pa.Table) -> bool:
    """Return whether a config's trials depend on a trained teacher."""
    if not rows.num_rows:
        return False
    first = {name: rows[name][0].as_py() for name in ("method", "student") if name in rows.column_names}
    begins_as_teacher = LAYERS_PATTERN.fullmatch(first.get("student") or "") is not None
    # A method unknown to this version may have a teacher.
    return begins_as_teacher or first["method"] not in METHOD_SPECS or method_spec(first["method"]).needs_teacher
