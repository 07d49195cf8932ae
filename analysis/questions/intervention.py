"""What an imposed gap did to the student: the arms of the space `gap_target`, each over its targets.

Where the gap is watched, accuracy may go with it for any reason. Here the target was set, so that accuracy over the
*target* is the effect of asking for a gap, however well it was met; what the gap came to over the target says whether
the asking worked. The placebo's target is a constant on all the teacher's logits: it must move the paper's gap by one
nat a nat, and accuracy by nothing.

It is an experiment only as far as the targets were drawn without looking: `--sampler random` or `qmc`. A sampler that
learns puts its later targets where accuracy was high by luck or by skill.
"""

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analysis.reading.landmark import GAPS, Evidence, Floats, GapName, at_landmark
from analysis.reading.trials import StudyRecords, numbers, objective, trial_scores
from analysis.statistics.estimates import MIN_UNITS, Estimate, expanded_estimate
from analysis.statistics.resampling import (
    Units,
    complete,
    line_values,
    percentile_interval,
    resampled,
    unit_count,
)

_POINTS: Final = 30

Control = Literal["paper", "centred", "placebo"]

# The gap that each arm's target is of; a placebo's constant moves the paper's.
_MEASURED: Final[dict[Control, GapName]] = {"centred": "centred", "paper": "paper", "placebo": "paper"}
_ENDS: Final = np.array([0.0, 1.0])


@dataclass(frozen=True)
class ImposedGap:
    """One arm.

    Args:
        control: `paper` or `centred`, whose gap was pulled to the target, or `placebo`, where the target was added to
            all the teacher's logits.
        target: (n,) nats, by config.
        gap: (n,) nats, what it came to: the arm's own gap, a placebo's the paper's.
        accuracy: (n,).
        effect: change of accuracy per nat of target, by least squares; n counts configs.
        reached: change of the gap per nat of target: 1 where it was met wholly.
        evidence: exploratory or confirmatory.
        note: which trials these are, at which epoch.
        objective: what is given as accuracy, in words.
    """

    control: Control
    target: Floats
    gap: Floats
    accuracy: Floats
    effect: Estimate
    reached: Estimate
    evidence: Evidence
    note: str
    objective: str = "accuracy"


def imposed_gaps(records: StudyRecords, *, searched: bool = True, seed: int = 0) -> list[ImposedGap]:
    """The arms that a study has, in the order centred, paper, placebo; none for a study that imposed nothing.

    Args:
        records: of a study.
        searched: the configs as they were proposed, each once; else every trial on fresh seeds, intervals over configs.
        seed: of the bootstrap over configs.
    """
    landmark = at_landmark(records, searched=searched)
    trials, words = landmark.trials, objective(landmark.trials)
    found = []
    for control in _MEASURED if "gap_control" in trials.column_names else ():
        own = trials.filter(pc.fill_null(pc.equal(trials["gap_control"], control), False))
        columns, units = _columns(own, control)
        if len(columns):
            target, gap, accuracy = columns.T
            effect = _slope(words, target, accuracy, units, seed)
            reached = _slope("gap", target, gap, units, seed)
            arm = ImposedGap(control, target, gap, accuracy, effect, reached, landmark.evidence, landmark.note, words)
            found.append(arm)
    return found


def fitted_line(target: Floats, values: Floats, seed: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Points on the target's range, the least-squares line there and its band, each (m,)."""
    grid = np.linspace(target.min(), target.max(), _POINTS)
    columns, units = complete([target, values])
    line = line_values(columns, np.ones((1, len(columns))), grid)[0]
    lines = resampled(lambda each, counts: line_values(each, counts, grid), columns, units, seed)
    low, high = np.array([percentile_interval(at)[:2] for at in lines.T]).T
    return grid, line, low, high


def _columns(trials: pa.Table, control: Control) -> tuple[Floats, Units]:
    """Target, gap and accuracy (n, 3) of an arm's trials, and each one's config."""
    columns = [numbers(trials, "gap_target"), GAPS[_MEASURED[control]](trials), trial_scores(trials)]
    return complete(columns, trials["config_id"].to_pylist())


def _slope(of: str, target: Floats, values: Floats, units: Units, seed: int) -> Estimate:
    """Least-squares slope of the values (n,) on the targets (n,), over configs."""
    name, n = f"least-squares slope of {of} on the target", unit_count(units)
    if np.ptp(target) == 0:
        return Estimate(math.nan, math.nan, math.nan, n, f"{name}: undefined, the target does not vary")
    columns = np.column_stack([target, values])
    observed = line_values(columns, np.ones((1, len(columns))), _ENDS)[0]
    value = float(observed[1] - observed[0])
    if n < MIN_UNITS:
        return Estimate(value, math.nan, math.nan, n, f"{name}, no interval for fewer than {MIN_UNITS} configs")
    slopes = np.diff(resampled(lambda c, counts: line_values(c, counts, _ENDS), columns, units, seed), axis=1)[:, 0]
    return expanded_estimate(name, value, slopes, n, n - 2)
