"""Combine the differences between a method and the baseline over several studies.

Each study gives one difference, paired by seed. These seeds were not used to choose the config. A random-effects model
combines the differences, because a method may help more with one pair of networks than with another. The mean answers
whether the method helps on average over studies like these. The prediction interval gives the expected range in a
further study.

The studies have to be independent. Studies with equal seeds share batches, and some share the baseline runs. `shared`
names these studies. Their mean is then less certain than the interval suggests.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from analysis.reading.landmark import Floats
from analysis.reading.pooling import of_study, study_names
from analysis.reading.scores import scores_by_method
from analysis.reading.trials import BASELINE, REPEATED, SEARCH, StudyRecords, select, trial_scores
from analysis.statistics.estimates import Estimate, mean_interval
from analysis.statistics.meta import RandomEffects, random_effects_mean
from analysis.statistics.resampling import without_spread
from trainables.display.numbers import (
    format_estimate,
    format_interval,
    format_number,
    format_p,
    format_percent,
    listed,
)

_LEAST_PAIRS: Final = 3


@dataclass(frozen=True)
class DifferenceAcross:
    """Difference between a method and the baseline in several studies.

    Args:
        method: method name, such as `pesf_kd` or `dkd+adapter`.
        baseline: baseline name.
        studies: difference in each study, with Student's t interval, by study name; n counts seeds.
        combined: random-effects mean, heterogeneity and prediction interval.
        left_out: reason by study name, for each study with the method that is not combined: the study repeats the runs
            of another study, has fewer than three paired seeds, or has no differences between paired scores.
        shared: combined studies with a seed in common with another combined study.
    """

    method: str
    baseline: str
    studies: dict[str, Estimate]
    combined: RandomEffects
    left_out: dict[str, str]
    shared: tuple[str, ...]


def differences_across(
    records: StudyRecords, *, methods: Sequence[str] | None = None, baseline: str = BASELINE
) -> list[DifferenceAcross]:
    """Combine the differences of methods from the baseline over the studies in a pool.

    If a study repeated several configs of a method, only the config with the highest search score is used. This config
    was chosen before the fresh seeds ran, so the choice does not bias the mean over the fresh seeds.

    Args:
        records: a pool, before `distinct_runs`, so that each study has its own baseline.
        methods: method names. Default: all methods that at least two studies compared with the baseline.
        baseline: baseline name.

    Raises:
        ValueError: if no study compared a given method with the baseline.
    """
    found: dict[str, dict[str, _Paired]] = defaultdict(dict)
    for study in study_names(records):
        own = _scores_by_method(of_study(records, study).trials)
        if baseline not in own:
            continue
        for method, scores in own.items():
            shared = sorted(scores.keys() & own[baseline].keys())
            if method != baseline and shared:
                pairs = [(scores[replicate], own[baseline][replicate]) for replicate in shared]
                found[method][study] = _Paired(
                    np.array([one.score - other.score for one, other in pairs]),
                    frozenset((one.run, other.run) for one, other in pairs),
                )
    for method in methods or ():
        if method not in found:
            raise ValueError(
                f"no study compared {method!r} with {baseline!r} on equal seeds; compared were: "
                f"{', '.join(sorted(found)) or 'none'}"
            )
    wanted = [method for method, of in found.items() if len(of) > 1] if methods is None else methods
    return [_combined(method, baseline, found[method]) for method in wanted]


class _Score(NamedTuple):
    """Score of a run, with the identifying config and seeds."""

    score: float
    run: tuple[Any, ...]


class _Paired(NamedTuple):
    """Differences (n,) in a study, with the pairs of runs behind them."""

    differences: Floats
    runs: frozenset[tuple[Any, Any]]

    @property
    def seeds(self) -> set[Any]:
        """Seeds of the runs."""
        return {run[1:] for pair in self.runs for run in pair}


def _scores_by_method(trials: pa.Table) -> dict[str, dict[int, _Score]]:
    """Return each method's scores on fresh seeds by repetition, for the config with the highest search score."""
    searched = select(trials, stages=[SEARCH])
    promised = dict(zip(searched["config_id"].to_pylist(), trial_scores(searched).tolist(), strict=True))
    rows = select(trials, stages=REPEATED)
    columns = [rows[field].to_pylist() for field in ("config_id", "replicate", "seed", "data_seed")]
    runs = {(config_id, replicate): (config_id, *seeds) for config_id, replicate, *seeds in zip(*columns, strict=True)}
    found = {}
    for name, configs in scores_by_method(trials, REPEATED).items():
        best = max(configs, key=lambda config_id: promised.get(config_id, -math.inf))
        found[name] = {each: _Score(score, runs[best, each]) for each, score in configs[best].items()}
    return found


def _combined(method: str, baseline: str, found: dict[str, _Paired]) -> DifferenceAcross:
    usable: dict[str, _Paired] = {}
    left_out = {}
    for study, own in found.items():
        same = [other for other, kept in usable.items() if kept.runs & own.runs]
        if same:
            left_out[study] = f"its runs repeat those of {same[0]}"
        elif len(own.differences) < _LEAST_PAIRS:
            left_out[study] = f"it has fewer than {_LEAST_PAIRS} paired seeds"
        elif without_spread(own.differences):
            left_out[study] = "its differences are all equal"
        else:
            usable[study] = own
    samples = {study: own.differences for study, own in usable.items()}
    errors = [float(own.std(ddof=1)) / math.sqrt(len(own)) for own in samples.values()]
    return DifferenceAcross(
        method,
        baseline,
        {study: mean_interval(own) for study, own in samples.items()},
        random_effects_mean([float(own.mean()) for own in samples.values()], errors),
        left_out,
        tuple(
            study
            for study, own in usable.items()
            if any(own.seeds & kept.seeds for other, kept in usable.items() if other != study)
        ),
    )


def differences_in_words(found: Sequence[DifferenceAcross]) -> str:
    """Describe the combined differences as a Markdown table, with notes on dependent studies."""
    known = [each for each in found if math.isfinite(each.combined.mean.value)]
    if not known:
        return "No method was compared with the baseline in two studies with independent runs."
    lines = [
        f"| method | studies | difference from {known[0].baseline}, points | p | in a further study | τ, points | I² |",
        "|" + " --- |" * 7,
    ]
    for each in known:
        mean, tau = each.combined.mean, format_number(100 * each.combined.tau, 2)
        further = format_interval(_in_points(each.combined.prediction), 2, signed=True) or "unknown from two studies"
        cells = [each.method, str(mean.n), format_estimate(_in_points(mean), 2, signed=True), format_p(mean.p_value)]
        lines.append("| " + " | ".join([*cells, further, tau, format_percent(each.combined.heterogeneity)]) + " |")
    notes = [f"- {known[0].combined.mean.method}."]
    for each in found:
        notes += [f"- {each.method}: {study} is left out, because {why}." for study, why in each.left_out.items()]
        if each.shared:
            notes.append(
                f"- {each.method}: {listed(each.shared)} share seeds and therefore batches, so they are not fully "
                "independent, and the interval is somewhat too short."
            )
    return "\n".join([*lines, "", *notes])


def _in_points(estimate: Estimate) -> Estimate:
    return replace(estimate, value=100 * estimate.value, low=100 * estimate.low, high=100 * estimate.high)
