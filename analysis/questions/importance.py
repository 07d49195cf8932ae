"""Parameter importances of a search with their uncertainty, and warnings about ranges that are too narrow.

Two Optuna evaluators are available, and every result names the evaluator:

- PED-ANOVA measures how strongly a parameter separates the best configs from all tried configs (Watanabe et al., 2023).
  It considers only the top configs. After a sampler has converged, the tried configs differ little from the best ones.
  PED-ANOVA can then detect little.
- fANOVA measures the fraction of accuracy variance over the whole space explained by one parameter alone, with a
  random forest (Hutter et al., 2014). Interactions are not attributed to any parameter.

Both return shares with a sum of one even if accuracy is pure noise, so a share alone proves nothing. Each share
therefore comes with a p-value from permuting the accuracies over the configs. Chance gives every parameter some share,
so few or noisy configs pull the shares towards each other. An interval shows how far other configs would move a share.
It does not show the size of this bias (see `importances`). Trials enter at the landmark (`analysis.reading.landmark`),
so early stopping excludes no trial. All results are exploratory: the search chose the configs by the outcome.

`analysis.questions.evaluators` calls Optuna. Callers pass the parameter bounds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pyarrow as pa

from analysis.questions.searched import TREES, Dimension, Evaluation, EvaluatorName, Point, top_quantile
from analysis.questions.wider import wider_argument
from analysis.reading.landmark import Evidence, Floats, at_landmark
from analysis.reading.trials import StudyRecords, trial_scores, varied_fields
from analysis.statistics.distributions import t_quantile
from analysis.statistics.estimates import Estimate
from analysis.statistics.resampling import CONFIDENCE

# With fewer configs, the best tenth or fifth consists of one or two configs.
MIN_CONFIGS: Final = 10
# Number of halves and of permutations. A forest takes several hundred times as long as a Parzen estimate.
_DRAWS: Final[Mapping[EvaluatorName, int]] = {"PED-ANOVA": 300, "fANOVA": 100}
# Fraction of the range at either end.
_EDGE: Final = 0.125
_BEST_SHARE: Final = 0.15
_MIN_BEST: Final = 3


@dataclass(frozen=True)
class Importance:
    """Importance of one parameter.

    Args:
        parameter: config field.
        evaluator: importance evaluator.
        estimate: parameter share, 0 to 1; n counts configs. The p-value is for the null hypothesis of no effect.
        first: fraction of random halves of the configs in which this parameter ranks first.
        evidence: exploratory.
        note: names the trials and the epoch.
    """

    parameter: str
    evaluator: EvaluatorName
    estimate: Estimate
    first: float
    evidence: Evidence
    note: str


@dataclass(frozen=True)
class RangeWarning:
    """Warning about a parameter with the best values near an end of the searched range.

    Args:
        parameter: config field.
        end: `low` or `high`.
        message: full warning in words.
    """

    parameter: str
    end: Literal["low", "high"]
    message: str


def importances(
    records: StudyRecords,
    dimensions: Sequence[Dimension],
    evaluator: EvaluatorName,
    *,
    seed: int = 0,
    draws: int | None = None,
) -> list[Importance]:
    """Estimate each searched parameter's share, most important first; empty for fewer than `MIN_CONFIGS` configs.

    The interval is for the average share over searches with this many configs. It is the share plus or minus Student's
    quantile times the delete-half jackknife standard error, clipped to [0, 1]. A bootstrap is unsuitable, because it
    repeats configs and a repeated config looks like structure. In simulations it lowered the important parameter's
    share by a further 0.1. Where one parameter mattered, the percentile intervals contained the share from an endless
    search in none of 200 searches.

    Simulated coverage, PED-ANOVA: 200 searches each of 16 and 40 configs over a width, a rate and a four-way choice.

    - The interval contained the average share in 0.89 to 1.
    - It contained the share from an endless search in 0.86 to 1 if the width, alone or with another parameter,
      mattered beyond the noise.
    - Chance pulls shares together, and no interval corrects this bias. Where noise hid the width, the interval for the
      width contained the endless share in 0.61 (16 configs) and 0.78 (40). Where only the choice mattered, the interval
      for the choice did so in 0.38 and 0.42.

    Simulated coverage, fANOVA: 30 searches of 16 configs over a width and a rate.

    - The interval contained the average share in 0.93 to 1.
    - It contained the share from an endless search in 0.93 to 1, and in 0.47 where noise hid the width. If this share
      was 0 or 1, the percentile interval contained it in no search.

    Args:
        records: study records.
        dimensions: searched parameters with bounds, such as a space's `parameters`. Parameters with a single value are
            skipped.
        evaluator: PED-ANOVA or fANOVA.
        seed: random seed for the forest, the halves and the permutations.
        draws: number of halves (at least two) and of permutations. Default: 300 for PED-ANOVA, 100 for fANOVA.

    Raises:
        ValueError: if a config lies outside the bounds, or if a varied parameter has neither bounds nor choices.

    Source: Shao and Wu, A general theory for jackknife variance estimation (1989), with random halves.
    """
    landmark = at_landmark(records, searched=True)
    searched = [each for each in dimensions if each.name in varied_fields(records.trials)]
    points, accuracies = _points(landmark.trials, searched)
    if len(points) < MIN_CONFIGS or not searched or np.ptp(accuracies) == 0:
        return []
    from analysis.questions import evaluators  # slow to import, and a comparison of methods needs none

    distributions = {each.name: evaluators.distribution(each) for each in searched}
    evaluators.check_bounds(points, distributions)
    count = _DRAWS[evaluator] if draws is None else draws
    with evaluators.quiet_optuna():
        shares, of_halves, p_values = _drawn(
            evaluators.evaluation(evaluator, distributions, len(points), seed), points, accuracies, count, seed
        )
    first = np.bincount(of_halves.argmax(axis=1), minlength=len(shares)) / max(1, len(of_halves))
    lows, highs = _intervals(shares, of_halves, len(points))
    method = (
        f"{_named(evaluator, len(points))}, delete-half jackknife over configs with Student t, within 0 to 1, "
        f"{CONFIDENCE}, {count} halves; {count} permutations"
    )
    found = []
    for number, name in enumerate(distributions):
        share, low, high, p_value = (float(each[number]) for each in (shares, lows, highs, p_values))
        estimate = Estimate(share, low, high, len(points), method, p_value)
        found.append(Importance(name, evaluator, estimate, float(first[number]), landmark.evidence, landmark.note))
    return sorted(found, key=lambda each: -each.estimate.value)


def _drawn(
    evaluate: Evaluation, points: Sequence[Point], accuracies: Floats, count: int, seed: int
) -> tuple[Floats, Floats, Floats]:
    """Compute shares (parameters,), shares in halves (≤ count, parameters), and p-values (parameters,) of no effect."""
    generator = np.random.default_rng(seed)
    observed = evaluate(points, accuracies)
    halves, permuted = [], []
    for _ in range(count):
        rows = generator.permutation(len(points))[: len(points) // 2]
        halves.append(_shares(evaluate([points[row] for row in rows], accuracies[rows])))
        permuted.append(evaluate(points, generator.permutation(accuracies)))
    # Exact ties differ in their last bits, by summation order.
    extreme = np.array(permuted) >= observed - 1e-12
    defined = [half for half in halves if np.isfinite(half).all()]
    of_halves = np.array(defined).reshape(len(defined), len(observed))
    return _shares(observed), of_halves, (extreme.sum(axis=0) + 1) / (count + 1)


def _intervals(shares: Floats, of_halves: Floats, n: int) -> tuple[Floats, Floats]:
    """Compute interval bounds (parameters,) of the shares; nan where fewer than two halves define them."""
    if len(of_halves) < 2:
        return np.full(len(shares), math.nan), np.full(len(shares), math.nan)
    half = n // 2
    # Halves drawn from the same n configs vary (n − half) / half as much as shares of n new configs.
    error = of_halves.std(axis=0, ddof=1) * math.sqrt(half / (n - half))
    reach = t_quantile((1 + CONFIDENCE) / 2, n - 1) * error
    return np.clip(shares - reach, 0.0, 1.0), np.clip(shares + reach, 0.0, 1.0)


def range_warnings(records: StudyRecords, dimensions: Sequence[Dimension]) -> list[RangeWarning]:
    """Warn about numeric parameters with the best values near a bound, as the optimum may lie beyond it.

    The check takes the best 15% of the searched configs, at least three. It warns if their median lies in the outer
    eighth of the range, on the parameter's own scale (linear or logarithmic). With fewer than `MIN_CONFIGS` configs
    there are no warnings.

    Simulated rates with evenly spread configs: for a parameter without effect, 8.6% of searches with up to 20 configs
    warn, 2.8% with 25, and 1.1% with 40. If accuracy increases all the way to a bound, 61%, 74% and 84% warn with 16,
    25 and 40 configs.

    Args:
        records: study records.
        dimensions: searched parameters with bounds, such as a space's `parameters`.
    """
    landmark = at_landmark(records, searched=True)
    searched = [each for each in dimensions if each.name in varied_fields(records.trials) and not each.choices]
    points, accuracies = _points(landmark.trials, searched)
    if len(points) < MIN_CONFIGS:
        return []
    best = max(_MIN_BEST, math.ceil(_BEST_SHARE * len(points)))
    top = [points[row] for row in np.argsort(-accuracies, kind="stable")[:best]]
    found = []
    for dimension in searched:
        position = float(np.median([_position(dimension, float(point[dimension.name])) for point in top]))
        if _EDGE < position < 1 - _EDGE:
            continue
        end: Literal["low", "high"] = "low" if position <= _EDGE else "high"
        bound = dimension.low if end == "low" else dimension.high
        argument = wider_argument(dimension, end)
        advice = (
            f"The best value may lie beyond: search a wider range with `{argument}`, or know why it cannot be wider"
            if argument is not None
            else f"{dimension.name} accepts no value beyond it"
        )
        message = (
            f"{dimension.name}: the best {best} of {len(points)} configs crowd at its {end} bound {bound:g} (their "
            f"median lies at {position:.0%} of the range{' in logarithms' if dimension.log else ''}). {advice}"
        )
        found.append(RangeWarning(dimension.name, end, message))
    return found


def _points(trials: pa.Table, searched: Sequence[Dimension]) -> tuple[list[Point], Floats]:
    """Return each trial's searched fields and the accuracies (n,), for trials with an accuracy."""
    accuracies = trial_scores(trials)
    kept = np.isfinite(accuracies)
    rows = trials.select([each.name for each in searched]).to_pylist() if searched else [{}] * trials.num_rows
    return [row for row, keep in zip(rows, kept, strict=True) if keep], accuracies[kept]


def _named(name: EvaluatorName, n: int) -> str:
    if name == "fANOVA":
        return f"fANOVA of {TREES} seeded trees"
    return f"PED-ANOVA of the best {top_quantile(n):.0%} against all"


def _shares(values: Floats) -> Floats:
    total = values.sum()
    return np.asarray(values / total) if total > 0 else np.full(len(values), 1 / len(values))


def _position(dimension: Dimension, value: float) -> float:
    """Return a value's position in the range, from 0 (low end) to 1 (high end), on the parameter's own scale."""
    low, high = dimension.low, dimension.high
    assert low is not None
    assert high is not None
    if dimension.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)
