"""Split the accuracy effect of the adapter's width, or of the temperature, into parts through and past the gap.

This is linear mediation over configs. The treatment changes the gap, and the gap is associated with accuracy given the
treatment. The product of both coefficients is the indirect effect. `analysis.statistics.estimates.mediation` defines
the effects. This module applies them to study records. It adds intervals for few configs, the mediated share, and the
minimum strength of an unmeasured common cause needed to explain the indirect effect away. Each result lists the
assumptions for a causal reading.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from analysis.reading.landmark import (
    GAPS,
    Evidence,
    Floats,
    GapName,
    at_landmark,
    config_columns,
    config_means,
    nuisance_fields,
    on_scale_of_search,
)
from analysis.reading.trials import StudyRecords, numbers, objective, trial_scores
from analysis.statistics.estimates import Estimate, expanded_estimate
from analysis.statistics.resampling import (
    complete,
    mediation_effects,
    partial_correlations,
    resampled,
)

# With fewer residual degrees of freedom, the outcome model nearly interpolates the points.
_MIN_LEFT: Final = 4
_NAMES: Final = (
    "direct effect",
    "indirect effect",
    "total effect",
    "share of the total effect that is mediated",
    "correlation of mediator and outcome given the rest",
)


@dataclass(frozen=True)
class GapMediation:
    """Effect of a treatment on accuracy, split into an indirect part through the gap and a direct part.

    Args:
        treatment: config field.
        unit: treatment step for the effects, such as `a doubling of adapter_width`.
        gap: gap name in `analysis.reading.landmark.GAPS`.
        held: held fields.
        direct: effect past the gap, in accuracy per unit.
        indirect: effect through the gap, in accuracy per unit.
        total: sum of both.
        share: indirect over total; undefined if the interval for the total contains 0, as there is no effect to divide.
        robustness: correlation between gap and accuracy given the treatment, −1 to 1. An unmeasured common cause that
            induces this correlation between both residuals explains the whole indirect effect.
        assumptions: conditions for a causal reading of the split.
        evidence: exploratory or confirmatory, by the trial stage.
        note: names the trials and the epoch.
    """

    treatment: str
    unit: str
    gap: GapName
    held: tuple[str, ...]
    direct: Estimate
    indirect: Estimate
    total: Estimate
    share: Estimate
    robustness: Estimate
    assumptions: tuple[str, ...]
    evidence: Evidence
    note: str


def gap_mediation(
    records: StudyRecords,
    treatment: str,
    gap: GapName,
    *,
    searched: bool = True,
    held: Sequence[str] | None = None,
    seed: int = 0,
) -> GapMediation:
    """Estimate the mediation over the configs in a study, with one point per config.

    Treatment and held fields enter on their sampling scale in the search. For a logarithmic scale, effects are
    per doubling of the treatment.

    Args:
        records: study records with a varied treatment.
        treatment: numeric config field, such as `adapter_width` or `temperature`.
        gap: gap name.
        searched: use each config as proposed by the search; else use means over fresh seeds.
        held: fields to hold; default: the nuisance parameters.
        seed: random seed for the bootstrap over configs.

    Raises:
        ValueError: if the treatment is not a numeric field in the records.
    """
    trials = records.trials
    if treatment not in trials.column_names or not _is_numeric(trials[treatment].type):
        raise ValueError(f"{treatment!r} is no numeric field of these trials' configs; adapter_width is one")
    fields = tuple(nuisance_fields(trials) if held is None else held)
    fields = tuple(name for name in fields if name != treatment)
    landmark = at_landmark(records, searched=searched)
    trials = landmark.trials
    columns = [GAPS[gap](trials), trial_scores(trials)]
    (mediator, outcome), first = config_means(columns, trials["config_id"].to_pylist())
    configs = trials.take(first)
    treated = numbers(configs, treatment)
    logarithmic = treatment in landmark.log_fields and bool((treated > 0).all())
    treated = on_scale_of_search(treated, log=logarithmic)
    covariates = config_columns(configs, fields, landmark.log_fields)
    split = split_effect(treated, mediator, outcome, covariates, seed=seed)
    return GapMediation(
        treatment,
        f"a doubling of {treatment}" if logarithmic else f"a step of 1 in {treatment}",
        gap,
        fields,
        *split,
        assumptions=_assumptions(treatment, gap, fields, landmark.evidence, objective(trials)),
        evidence=landmark.evidence,
        note=landmark.note,
    )


def split_effect(
    treatment: Floats, mediator: Floats, outcome: Floats, covariates: Floats, *, seed: int = 0
) -> tuple[Estimate, Estimate, Estimate, Estimate, Estimate]:
    """Estimate direct, indirect and total effect, the mediated share and the robustness, over independent units.

    Args:
        treatment: (n,).
        mediator: (n,).
        outcome: (n,).
        covariates: (n, k), values to hold; k may be 0.
        seed: random seed for the bootstrap.
    """
    n = len(treatment)
    freedom = n - 3 - covariates.shape[1]
    columns, units = complete([treatment, mediator, outcome, *covariates.T])
    if freedom < _MIN_LEFT or len(columns) < n:
        method = f"linear mediation: undefined, {n} configs are too few for {covariates.shape[1]} held columns"
        nothing = Estimate(math.nan, math.nan, math.nan, n, method)
        return nothing, nothing, nothing, nothing, nothing
    observed = _parts(columns, np.ones((1, n)))[0]
    draws = resampled(_parts, columns, units, seed)
    direct, indirect, total, share, robustness = (
        _estimate(name, float(value), draw, n, freedom)
        for name, value, draw in zip(_NAMES, observed, draws.T, strict=True)
    )
    if not (total.low > 0 or total.high < 0):
        why = "undefined, the total effect's interval contains 0"
        share = Estimate(math.nan, math.nan, math.nan, n, f"{_NAMES[3]}: {why}")
    return direct, indirect, total, share, robustness


def _parts(columns: Floats, counts: Floats) -> Floats:
    """Compute direct, indirect and total effect, share, and residual correlation (B, 5) for every resample."""
    effects = mediation_effects(columns, counts)
    total = np.where(effects[:, 2] == 0, math.nan, effects[:, 2])
    treatment, mediator, outcome, *covariates = columns.T
    rests = partial_correlations(np.column_stack([mediator, outcome, treatment, *covariates]), counts)
    return np.column_stack([effects, effects[:, 1] / total, rests])


def _estimate(name: str, value: float, draws: Floats, n: int, freedom: int) -> Estimate:
    """Return the value with the resampling interval from the draws (B,).

    The interval is expanded. A plain percentile interval found a non-existent indirect effect in 14 of 120 simulated
    studies with 30 configs.
    """
    if math.isnan(value):
        return Estimate(value, math.nan, math.nan, n, f"{name}: undefined, an input does not vary")
    return expanded_estimate(f"{name}, linear mediation", value, draws, n, freedom)


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _assumptions(treatment: str, gap: GapName, held: Sequence[str], evidence: Evidence, score: str) -> tuple[str, ...]:
    given = f"given {', '.join(held)}" if held else "with nothing held"
    said = [
        f"Nothing that is not held moves both {treatment} and the gap, or both {treatment} and {score}. "
        + (
            f"A sampler chose {treatment} by the {score} of earlier configs, so this is not granted."
            if evidence == "exploratory"
            else f"The configs that were repeated were chosen by their {score}, so this is not granted of {treatment}."
        ),
        f"Nothing unmeasured moves both gap and {score}, {given}. No sampler and no seed gives this: a config that "
        "trains well can have a small gap and a good student without the one making the other. `robustness` says how "
        "strong such a cause would have to be.",
        f"{treatment} moves no cause that gap and {score} have in common, such as how well the adapted teacher "
        "knows the labels.",
        f"Effects are linear in {treatment} and the gap, and the gap's effect is the same at every {treatment}.",
        f"The gap comes before the {score} and is measured without error. Both are measured on the same student, on "
        "the same validation samples, at the same epoch: the gap contains the student's own sharpness, so part of it "
        "is a consequence of how the student turned out.",
    ]
    if gap in ("paper", "tempered"):
        said.append(
            "A constant on all the teacher's logits moves this gap and cannot move the student, so an effect through "
            "it acts through other quantities that move with it; the centred gap has no such part."
        )
    said.append("Where one of these fails the numbers split an association; the space `gap_target` intervenes instead.")
    return tuple(said)
