"""Which parameters mattered in a search, how sure that is, and whether a range was too narrow.

Two evaluators, both Optuna's and both named with what they answer:

- PED-ANOVA: how much a parameter tells the best configs from all configs that were tried (Watanabe et al., 2023). It
  asks about reaching the top only, and a sampler that has settled leaves it little to tell.
- fANOVA: the share of accuracy's variance over the whole space that a parameter accounts for by itself, by a random
  forest (Hutter et al., 2014). Interactions are in nobody's share.

Both give shares of one whichever way the accuracies fell, so a share by itself proves nothing: each comes with the
p-value of permuting the accuracies over the configs. Chance gives every parameter something, so that few or noisy
configs draw the shares towards one another; an interval tells how far other configs would move them, not how far that
is (`importances`). Trials enter at the landmark (`analysis.reading.landmark`), so none is left out for having been
stopped early. Everything here is exploratory: a search chose the configs by the outcome.

This is the one module here that imports Optuna, for its evaluators; bounds are handed in.
"""

import math
import warnings
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, Protocol, TypeAlias

import numpy as np
import optuna
import pyarrow as pa
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.importance import BaseImportanceEvaluator, FanovaImportanceEvaluator, PedAnovaImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState
from scipy import stats

from analysis.reading.landmark import Evidence, Floats, at_landmark
from analysis.reading.trials import StudyRecords, trial_scores, varied_fields
from analysis.statistics.estimates import Estimate
from analysis.statistics.resampling import CONFIDENCE

EvaluatorName = Literal["PED-ANOVA", "fANOVA"]
Point: TypeAlias = Mapping[str, Any]
# Of points and accuracies (n,): the importances (parameters,), before they are made shares.
Evaluation: TypeAlias = Callable[[Sequence[Point], Floats], Floats]

# Below, the best tenth or fifth is one or two configs.
MIN_CONFIGS: Final = 10
# PED-ANOVA wants at least this many configs in the top, and its tenth where that is more.
_TOP: Final = 5
_TOP_SHARE: Final = 0.1
_TREES: Final = 32
# How many halves and permutations: a forest takes some hundred times as long as a Parzen estimate.
_DRAWS: Final[Mapping[EvaluatorName, int]] = {"PED-ANOVA": 300, "fANOVA": 100}
# A share of the range at either end.
_EDGE: Final = 0.125
_BEST_SHARE: Final = 0.15
_MIN_BEST: Final = 3


class Dimension(Protocol):
    """What is needed of a searched parameter; `search_spaces.Parameter` is one."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def low(self) -> float | None: ...  # noqa: D102
    @property
    def high(self) -> float | None: ...  # noqa: D102
    @property
    def choices(self) -> tuple[Any, ...]: ...  # noqa: D102
    @property
    def log(self) -> bool: ...  # noqa: D102


@dataclass(frozen=True)
class Importance:
    """How much one parameter mattered.

    Args:
        parameter: field of the config.
        evaluator: by whom.
        estimate: its share, 0 to 1; n counts configs. The p-value is of no effect at all.
        first: share of the random halves of the configs in which it is the most important one.
        evidence: exploratory.
        note: which trials it is of, at which epoch.
    """

    parameter: str
    evaluator: EvaluatorName
    estimate: Estimate
    first: float
    evidence: Evidence
    note: str


@dataclass(frozen=True)
class RangeWarning:
    """A parameter whose best values crowd at an end of what was searched.

    Args:
        parameter: field of the config.
        end: `low` or `high`.
        position: where the median of the best configs lies, 0 at the low end and 1 at the high one.
        n: configs that were searched.
        message: all of it in words.
    """

    parameter: str
    end: Literal["low", "high"]
    position: float
    n: int
    message: str


def importances(
    records: StudyRecords,
    dimensions: Sequence[Dimension],
    evaluator: EvaluatorName,
    *,
    seed: int = 0,
    draws: int | None = None,
) -> list[Importance]:
    """Shares of the searched parameters, the most important first; none for fewer than `MIN_CONFIGS` configs.

    An interval is of the share that searches of so many configs come to on average: the share plus and minus Student's
    quantile times its standard error by the delete-half jackknife, cut to 0 … 1. A bootstrap would not do. It repeats
    configs, and a repeated config looks like structure: it lowered the share of what mattered by 0.1 again, and its
    percentile intervals held what an endless search has in none of 200 simulated ones where one parameter mattered.

    Of 200 simulated searches each of 16 and of 40 configs over a width, a rate and a choice of four, this interval of
    PED-ANOVA's held the average in 0.89 to 1. What an endless search has it held in 0.86 to 1 where a width, or a
    width and something else, mattered beyond the noise. Chance draws shares together, which no interval mends: where
    noise hid the width its own held that in 0.61 (16 configs) and 0.78 (40), and where the choice alone mattered the
    choice's in 0.38 and 0.42. fANOVA's, of 30 searches of 16 configs over a width and a rate: the average in 0.93 to 1,
    the truth in 0.93 to 1 and under that noise in 0.47, which the percentile interval held in none if it was 0 or 1.

    Args:
        records: of a study.
        dimensions: what was searched with its bounds, such as a space's `parameters`; what does not vary is skipped.
        evaluator: PED-ANOVA or fANOVA.
        seed: of the forest, the halves and the permutations.
        draws: how many halves, two at least, and how many permutations; 300 for PED-ANOVA and 100 for fANOVA if not
            given.

    Raises:
        ValueError: if a config lies outside of the bounds.

    Source: Shao and Wu, A general theory for jackknife variance estimation (1989), with random halves.
    """
    landmark = at_landmark(records, searched=True)
    searched = [each for each in dimensions if each.name in varied_fields(records.trials)]
    points, accuracies = _points(landmark.trials, searched)
    if len(points) < MIN_CONFIGS or not searched or np.ptp(accuracies) == 0:
        return []
    distributions = {each.name: _distribution(each) for each in searched}
    _check_bounds(points, distributions)
    count = _DRAWS[evaluator] if draws is None else draws
    with _quiet_optuna():
        shares, of_halves, p_values = _drawn(
            _evaluation(evaluator, distributions, len(points), seed), points, accuracies, count, seed
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
    """Shares (parameters,), those of halves of the configs (≤ count, parameters), and the p-values of no effect."""
    generator = np.random.default_rng(seed)
    observed = evaluate(points, accuracies)
    halves, permuted = [], []
    for _ in range(count):
        rows = generator.permutation(len(points))[: len(points) // 2]
        halves.append(_shares(evaluate([points[row] for row in rows], accuracies[rows])))
        permuted.append(evaluate(points, generator.permutation(accuracies)))
    # Equal on paper, but for the order of a sum.
    extreme = np.array(permuted) >= observed - 1e-12
    defined = [half for half in halves if np.isfinite(half).all()]
    of_halves = np.array(defined).reshape(len(defined), len(observed))
    return _shares(observed), of_halves, (extreme.sum(axis=0) + 1) / (count + 1)


def _intervals(shares: Floats, of_halves: Floats, n: int) -> tuple[Floats, Floats]:
    """Bounds (parameters,) of the shares of n configs; nan where fewer than two halves define them."""
    if len(of_halves) < 2:
        return np.full(len(shares), math.nan), np.full(len(shares), math.nan)
    half = n // 2
    # Halves of the same n configs vary (n − half) / half as much as shares of n other ones.
    error = of_halves.std(axis=0, ddof=1) * math.sqrt(half / (n - half))
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * error
    return np.clip(shares - reach, 0.0, 1.0), np.clip(shares + reach, 0.0, 1.0)


def range_warnings(records: StudyRecords, dimensions: Sequence[Dimension]) -> list[RangeWarning]:
    """The numeric parameters whose best values crowd at a bound: the best one may lie beyond it.

    The best 15% of the searched configs are looked at, three at least: their median lies in the outer eighth of the
    range, on its own scale. Of a parameter that does nothing this is so in 8.6% of the searches of up to 20
    evenly spread configs, 2.8% of those of 25 and 1.1% of those of 40; where accuracy rises all the way to a bound, in
    61%, 74% and 84% of those of 16, 25 and 40. Nothing is said of fewer than `MIN_CONFIGS` configs.

    Args:
        records: of a study.
        dimensions: what was searched with its bounds, such as a space's `parameters`.
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
        message = (
            f"{dimension.name}: the best {best} of {len(points)} configs crowd at its {end} bound {bound:g} (their "
            f"median lies at {position:.0%} of the range{' in logarithms' if dimension.log else ''}). The best value "
            "may lie beyond: search a wider range, or know why it cannot be wider"
        )
        found.append(RangeWarning(dimension.name, end, position, len(points), message))
    return found


def _points(trials: pa.Table, searched: Sequence[Dimension]) -> tuple[list[Point], Floats]:
    """The searched fields of each trial with an accuracy, and the accuracies (n,)."""
    accuracies = trial_scores(trials)
    kept = np.isfinite(accuracies)
    rows = trials.select([each.name for each in searched]).to_pylist() if searched else [{}] * trials.num_rows
    return [row for row, keep in zip(rows, kept, strict=True) if keep], accuracies[kept]


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.choices:
        return CategoricalDistribution(dimension.choices)
    low, high = dimension.low, dimension.high
    if low is None or high is None:
        raise ValueError(f"{dimension.name} varied in this search, but is given neither bounds nor choices")
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=dimension.log)
    return FloatDistribution(low, high, log=dimension.log)


def _check_bounds(points: Sequence[Point], distributions: Mapping[str, BaseDistribution]) -> None:
    for point in points:
        for name, distribution in distributions.items():
            if not distribution._contains(distribution.to_internal_repr(point[name])):
                raise ValueError(
                    f"a config has {name} {point[name]!r}, outside of {distribution}: "
                    "give the bounds of the space that this study searched"
                )


class _Prepared(optuna.storages.InMemoryStorage):
    """A store of finished trials that gives them out as they are.

    Optuna's own copies each trial deeply on its way in, which takes ten times as long as a Parzen estimate of it.
    """

    def __init__(self, trials: list[FrozenTrial]) -> None:
        super().__init__()
        self._prepared = trials

    def get_all_trials(
        self,
        study_id: int,  # noqa: ARG002
        deepcopy: bool = True,  # noqa: ARG002
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        return [each for each in self._prepared if states is None or each.state in states]


def _evaluation(name: EvaluatorName, distributions: Mapping[str, BaseDistribution], n: int, seed: int) -> Evaluation:
    """The evaluator for n configs, which looks for as large a top in half of them as in all."""
    order = list(distributions)

    def evaluate(points: Sequence[Point], accuracies: Floats) -> Floats:
        now = datetime.now()
        trials = [
            FrozenTrial(
                number=number,
                state=TrialState.COMPLETE,
                value=float(accuracy),
                datetime_start=now,
                datetime_complete=now,
                params=dict(point),
                distributions=dict(distributions),
                user_attrs={},
                system_attrs={},
                intermediate_values={},
                trial_id=number,
            )
            for number, (point, accuracy) in enumerate(zip(points, accuracies, strict=True))
        ]
        study = optuna.create_study(direction="maximize", storage=_Prepared(trials))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                values = _evaluator(name, n, seed).evaluate(study, params=order)
        except RuntimeError:  # the forest's, where the accuracies of a half are all one
            return np.full(len(order), math.nan)
        return np.array([values[each] for each in order])

    return evaluate


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Without a line for every study that is made, of which there are hundreds."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _evaluator(name: EvaluatorName, n: int, seed: int) -> BaseImportanceEvaluator:
    if name == "fANOVA":
        return FanovaImportanceEvaluator(n_trees=_TREES, seed=seed)
    return PedAnovaImportanceEvaluator(target_quantile=_top_quantile(n))


def _top_quantile(n: int) -> float:
    return min(0.5, max(_TOP_SHARE, _TOP / n))


def _named(name: EvaluatorName, n: int) -> str:
    if name == "fANOVA":
        return f"fANOVA of {_TREES} seeded trees"
    return f"PED-ANOVA of the best {_top_quantile(n):.0%} against all"


def _shares(values: Floats) -> Floats:
    total = values.sum()
    return np.asarray(values / total) if total > 0 else np.full(len(values), 1 / len(values))


def _position(dimension: Dimension, value: float) -> float:
    """Where a value lies in its range, 0 at the low end and 1 at the high one, on the parameter's own scale."""
    low, high = dimension.low, dimension.high
    assert low is not None
    assert high is not None
    if dimension.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)
