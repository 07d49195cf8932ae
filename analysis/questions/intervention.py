"""Estimate the effect of an imposed gap on the student, for each arm in the space `gap_target` over the targets.

An observed gap can be associated with accuracy for any reason. Here the gap target was set. The slope of accuracy over
the *target* is therefore the effect of requesting a gap, however closely the request was met. The slope of the measured
gap over the target shows whether the request worked. The placebo's target is a constant added to all teacher logits. It
must change the paper's gap by one nat per nat, and must not change accuracy.

This is an experiment only if the targets were drawn independently of the results, with `--sampler random` or `qmc`. An
adaptive sampler places later targets where accuracy was high, by chance or not.
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
    line_band,
    line_values,
    resampled,
    unit_count,
)

_POINTS: Final = 30

Control = Literal["paper", "centred", "placebo"]

# Gap controlled by each arm's target. The placebo's constant shifts the paper's gap.
_MEASURED: Final[dict[Control, GapName]] = {"centred": "centred", "paper": "paper", "placebo": "paper"}
_ENDS: Final = np.array([0.0, 1.0])


@dataclass(frozen=True)
class ImposedGap:
    """Arm of the intervention.

    Args:
        control: `paper` or `centred` if that gap was driven to the target; `placebo` if the target was added to all
            teacher logits.
        target: (n,) target in nats.
        gap: (n,) measured gap in nats, of the kind controlled by the arm; the paper's gap for the placebo.
        accuracy: (n,).
        effect: accuracy change per nat of target, by least squares; n counts configs.
        reached: gap change per nat of target; 1 if the target is fully met.
        evidence: exploratory or confirmatory.
        note: names the trials and the epoch.
        objective: name of the objective used as accuracy.
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
    """Return a study's arms in the order centred, paper, placebo; empty if the study imposed no gap.

    Args:
        records: study records.
        searched: use each config once, as proposed by the search; else use all trials on fresh seeds, with intervals
            over configs.
        seed: random seed for the bootstrap over configs.
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
    """Return points in the target range, and the least-squares line with a band at these points, each (m,)."""
    grid = np.linspace(target.min(), target.max(), _POINTS)
    columns, units = complete([target, values])
    line = line_values(columns, np.ones((1, len(columns))), grid)[0]
    return grid, line, *line_band(columns, units, grid, seed)


def _columns(trials: pa.Table, control: Control) -> tuple[Floats, Units]:
    """Return target, gap and accuracy (n, 3) of an arm's trials, and the config number of each trial."""
    columns = [numbers(trials, "gap_target"), GAPS[_MEASURED[control]](trials), trial_scores(trials)]
    return complete(columns, trials["config_id"].to_pylist())


def _slope(of: str, target: Floats, values: Floats, units: Units, seed: int) -> Estimate:
    """Estimate the least-squares slope of values (n,) on targets (n,), with the interval over configs."""
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
