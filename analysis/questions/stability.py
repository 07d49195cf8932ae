"""Measure how stable the ranking of a study's repeated configs is over seeds.

A table of means does not show whether the best config is best with every seed or only with a lucky one. Here every seed
ranks the configs. The results are the agreement between two seeds, and how often the first config remains first.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from analysis.reading.landmark import Evidence, Floats
from analysis.reading.scores import score_table, scores_by_config, shared_replicates
from analysis.reading.trials import SEARCH, StudyRecords, of_the_search_schedule
from analysis.statistics.distributions import mid_ranks, t_quantile
from analysis.statistics.estimates import Estimate, within_range
from analysis.statistics.resampling import CONFIDENCE

_DRAWS: Final = 4000
# Two configs have only two rankings, so two seeds agree by chance half of the time.
_MIN_CONFIGS: Final = 3
_MIN_SEEDS: Final = 3


@dataclass(frozen=True)
class RankStability:
    """Agreement between seeds on the config ranking.

    Args:
        agreement: mean rank correlation between pairs of seeds, −1 / (seeds − 1) to 1; n counts seeds. The p-value is
            for random rankings. Kendall's W is (agreement · (seeds − 1) + 1) / seeds.
        best: by config, the fraction of seed resamples in which the config has the highest mean accuracy, largest
            fraction first.
        evidence: confirmatory, because only fresh seeds are used.
        note: number of configs and seeds.
    """

    agreement: Estimate
    best: Mapping[str, float]
    evidence: Evidence
    note: str


def rank_stability(records: StudyRecords, *, seed: int = 0) -> RankStability:
    """Measure the stability over configs that finished on every fresh seed shared by most configs.

    Args:
        records: study records.
        seed: random seed for the resamples and the permutations.
    """
    trials = of_the_search_schedule(records.trials)
    stages = {*trials["stage"].to_pylist()} - {SEARCH}
    scores = scores_by_config(trials, stages)
    everywhere = max((len(each) for each in scores.values()), default=0)
    complete = {config_id: each for config_id, each in scores.items() if len(each) == everywhere}
    replicates = shared_replicates(complete.values())
    table = score_table([*complete.values()], replicates).T
    left_out = len(scores) - len(complete)
    note = f"{len(complete)} configs on {len(replicates)} fresh seeds"
    note += f"; {left_out} without a result on each of them left out" if left_out else ""
    return RankStability(seed_agreement(table, seed=seed), _best(table, list(complete), seed), "confirmatory", note)


def seed_agreement(table: Floats, *, seed: int = 0) -> Estimate:
    """Estimate the mean rank correlation between pairs of seeds.

    The interval is a jackknife over seeds with Student's t. The p-value comes from permuting the ranks from each seed.
    There is no interval if leaving out any seed gives the same mean, for example because all seeds rank alike. These
    seeds carry no information about the expected agreement of other seeds. For four configs and seeds with agreement
    0.93, this happened in 0.57 of 1,500 simulated studies with three seeds, and in 0.23 with eight. An interval of
    [1, 1] would have contained the true value in none of them.

    The interval for other rank correlations (`analysis.statistics.ranks`) does not apply. Its length comes from the
    null distribution, but the agreement varies more if seeds agree than for random rankings. Coverage in 400 simulated
    studies with six configs, with true agreements of 0.11, 0.32 and 0.69:

        seeds   jackknife          interval of `ranks`
        3       0.99, 0.96, 0.94   0.92, 0.89, 0.89
        8       0.96, 0.95, 0.92   0.85, 0.69, 0.70
        12      0.93, 0.95, 0.92   0.72, 0.64, 0.59

    Args:
        table: (seeds, configs) accuracies.
        seed: random seed for the permutations.

    Returns:
        Mean rank correlation; undefined for fewer than three seeds or three configs, or if a seed has equal accuracies
        for all configs. If there is no interval, `method` gives the reason.

    Source: Kendall and Babington Smith (1939) for W; Efron and Tibshirani (1993), section 11.5, for the interval.
    """
    n, m = table.shape
    name = f"mean rank correlation between pairs of seeds over {m} configs"
    if n < _MIN_SEEDS or m < _MIN_CONFIGS or (np.ptp(table, axis=1) == 0).any():
        return Estimate(math.nan, math.nan, math.nan, n, f"{name}: undefined")
    scores = _standardised_ranks(table)
    value = float(_mean_pairwise(scores.sum(axis=0), n))
    without = _mean_pairwise(scores.sum(axis=0) - scores, n - 1)
    pseudo = n * value - (n - 1) * without
    spread = float(pseudo.std(ddof=1))
    generator = np.random.default_rng(seed)
    drawn = generator.permuted(np.broadcast_to(scores, (_DRAWS, n, m)), axis=2).sum(axis=1)
    extreme = int(np.count_nonzero(_mean_pairwise(drawn, n) >= value - 1e-12))
    test, p_value = f"{_DRAWS} seeded permutations, one-sided", (extreme + 1) / (_DRAWS + 1)
    if spread <= 1e-9:
        why = f"all {n} seeds rank alike" if value > 1 - 1e-9 else f"it is the same without any of the {n} seeds"
        return Estimate(value, math.nan, math.nan, n, f"{name}, no interval: {why}; {test}", p_value)
    half = t_quantile((1 + CONFIDENCE) / 2, n - 1) * spread / math.sqrt(n)
    method = f"{name}, jackknife over seeds with Student t, {CONFIDENCE}; {test}"
    return within_range(Estimate(value, value - half, value + half, n, method, p_value), -1.0, 1.0)


def _standardised_ranks(table: Floats) -> Floats:
    """Rank within each row, scaled to mean 0 and length 1, so products of rows are rank correlations."""
    ranks = mid_ranks(table)
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    return np.asarray(centred / np.linalg.norm(centred, axis=1, keepdims=True))


def _mean_pairwise(total: Floats, n: int) -> Floats:
    """Compute the mean product (...) over pairs among n rows with length 1, from the sum (..., m) over the rows."""
    return np.asarray(((total**2).sum(axis=-1) - n) / (n * (n - 1)))


def _best(table: Floats, configs: list[str], seed: int) -> dict[str, float]:
    n, m = table.shape
    if not n or not m:
        return {}
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=_DRAWS)
    winners = np.bincount((counts @ table).argmax(axis=1), minlength=m) / _DRAWS
    return dict(sorted(zip(configs, winners.tolist(), strict=True), key=lambda each: -each[1]))
