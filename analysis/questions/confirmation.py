"""Choose configs for confirmation by a lower bound, and summarise them on fresh seeds and the test split.

The best search score is the maximum over many noisy numbers, so it reflects the seed more than the config. Configs are
therefore chosen by a lower bound on their mean score. The confirmation seeds were not used for any choice, so means
over these seeds are unbiased. The excess of the search score over this mean is the winner's optimism.

If a study searches each method several times, the best config from each search is confirmed. A method is then the mean
over these configs, with intervals and tests over seeds and searches (`analysis.statistics.over_searches`).
"""

import collections
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analysis.questions.beyond_seeds import (
    BeyondSeeds,
    difference_beyond_seeds,
    mean_beyond_seeds,
)
from analysis.questions.samples import crossed_difference
from analysis.questions.searches import NestedScores, method_label, spread_note
from analysis.reading.scores import gaps_by_config, scores_by_config, scores_by_replicate
from analysis.reading.trials import (
    CONFIRM,
    SHARPNESS_GAP,
    STUDENT,
    holm_of,
    mean_score,
    numbers,
    objective,
    objective_measure,
    planned_epochs,
    select,
    within_possible,
    within_reach,
)
from analysis.statistics.distributions import t_quantile
from analysis.statistics.equivalence import SMALLEST_EFFECT
from analysis.statistics.estimates import Estimate, mean_interval, paired_difference
from analysis.statistics.resampling import CONFIDENCE

_NO_SPREAD: Final = "no bound: no config was repeated on two seeds, so the variation between seeds is unknown"


@dataclass(frozen=True)
class Scores:
    """Validation accuracies of a config so far.

    Args:
        searched: accuracies in the search, on seeds used to choose configs.
        fresh: accuracies on seeds not used for any choice.
    """

    searched: tuple[float, ...] = ()
    fresh: tuple[float, ...] = ()

    @property
    def value(self) -> float:
        """Mean of the fresh accuracies if there are any, else of the searched accuracies."""
        return float(np.mean(self.fresh or self.searched))


@dataclass(frozen=True)
class ConfirmedConfig:
    """Config in a confirmation.

    Args:
        config_id: config digest.
        label: name in tables.
        rank: rank by the lower bound, from 1; None for a config not chosen by rank.
        control: control name, or None if the config is not a control.
        winner: whether this config's single search score was the best in the search.
        test_accuracy: objective on the test split over the confirmation seeds; a fraction if the objective is accuracy.
        accuracy: objective on the validation split over the confirmation seeds.
        gap: sharpness gap in nats over the confirmation seeds; n is 0 for a method without a gap.
        bound: estimate with the lower bound used to choose the config; None for a control.
        search_score: validation accuracy before the confirmation; None if the config was never tried.
        optimism: `search_score` minus `accuracy`; None without a search score, or if the confirmation trials have a
            different number of epochs from the trial with the search score.
        optimism_on_test: `search_score` minus `test_accuracy`; None as for `optimism`.
        beyond_seeds: `test_accuracy` with an interval over teachers or splits, and seeds; None for a single teacher and
            split, and for a method without a teacher on a single split.
        method: method name, if the study compares methods; empty in summaries from earlier versions.
        searches: numbers, from 1, of the method's searches with this best config; empty for one search.
    """

    config_id: str
    label: str
    rank: int | None
    control: str | None
    winner: bool
    test_accuracy: Estimate
    accuracy: Estimate
    gap: Estimate
    bound: Mapping[str, Any] | None
    search_score: float | None
    optimism: Estimate | None
    optimism_on_test: Estimate | None
    beyond_seeds: BeyondSeeds | None = None
    method: str = ""
    searches: tuple[int, ...] = ()


@dataclass(frozen=True)
class ConfirmedMethod:
    """Method with the best configs from several searches, averaged over searches and seeds.

    Args:
        method: method name.
        searches: number of searches.
        configs: digest of each search's best config; a config found by two searches occurs twice.
        rank: method rank; None for a method not chosen by rank.
        control: control name, or None if the method is not a control.
        test_accuracy: objective on the test split over searches and seeds.
        accuracy: objective on the validation split.
        gap: sharpness gap in nats; n is 0 for a method without a gap.
    """

    method: str
    searches: int
    configs: tuple[str, ...]
    rank: int | None
    control: str | None
    test_accuracy: Estimate
    accuracy: Estimate
    gap: Estimate

    @property
    def label(self) -> str:
        """Name in tables, with the number of averaged searches."""
        return method_label(self.method, self.searches)


@dataclass(frozen=True)
class Comparison:
    """Difference between two configs or methods in the objective on the test split, paired by seed.

    Args:
        config_id: digest of the first config; if there are several, of the first among them.
        label: label of the first config, or method name.
        against: digest of the second config; if there are several, of the first among them.
        against_label: label of the second config, or method name.
        difference: first minus second; a fraction if the objective is accuracy.
        corrected_p: p-value after Holm's correction over all comparisons in the confirmation; None without a p-value.
        corrected_equivalence: equivalence test p-value, corrected in the same way.
        over_samples: the same difference with an interval over seeds and test samples; None if the records lack the
            correctly classified samples for each trial, or the objective is not accuracy. The interval holds for the
            found configs.
        beyond_seeds: the same difference with an interval over teachers or splits, and seeds; None for a single teacher
            and split, and if neither method has a teacher on a single split.
        configs: digests of the averaged configs on the first side, one for each search.
        against_configs: digests of the averaged configs on the second side.
    """

    config_id: str
    label: str
    against: str
    against_label: str
    difference: Estimate
    corrected_p: float | None
    corrected_equivalence: float | None = None
    over_samples: Estimate | None = None
    beyond_seeds: BeyondSeeds | None = None
    configs: tuple[str, ...] = ()
    against_configs: tuple[str, ...] = ()

    @property
    def clear(self) -> bool:
        """Whether the difference's interval lies above zero."""
        return self.difference.low > 0


class Schedules(NamedTuple):
    """Numbers of training epochs in a study with longer, or shorter, confirmation trials.

    Args:
        chosen: epochs in the trials used to choose the configs.
        confirmed: epochs in the confirmation trials.
    """

    chosen: int
    confirmed: int


@dataclass(frozen=True)
class ConfirmationResult:
    """Confirmed configs in choice order, and all planned comparisons.

    Args:
        configs: confirmed configs.
        comparisons: planned comparisons.
        objective: name of the compared objective.
        compares_methods: whether every config is compared with the baseline, rather than the choices with controls.
        schedules: numbers of epochs, if the confirmation trials differ from all other trials in this number; else None.
        methods: methods averaged over searches, in choice order; empty for one search per method.
        note: description of the spread between searches; empty for one search per method.
    """

    configs: list[ConfirmedConfig]
    comparisons: list[Comparison]
    objective: str = "accuracy"
    compares_methods: bool = False
    schedules: Schedules | None = None
    methods: tuple[ConfirmedMethod, ...] = ()
    note: str = ""

    @property
    def score_before(self) -> str:
        """Heading for the column with the scores before the confirmation."""
        return "score before" if self.schedules is None else f"score before ({self.schedules.chosen} epochs)"

    @property
    def measured(self) -> list[ConfirmedConfig | ConfirmedMethod]:
        """Methods, or else configs, with a test score."""
        return [each for each in self.methods or self.configs if each.test_accuracy.n]

    @property
    def first_mean(self) -> ConfirmedConfig | ConfirmedMethod | None:
        """Method with rank 1, or else the config, or None."""
        return next((each for each in self.methods or self.configs if each.rank == 1), None)

    @property
    def first(self) -> ConfirmedConfig | None:
        """Config with rank 1, or None."""
        return next((config for config in self.configs if config.rank == 1), None)

    @property
    def over(self) -> str | None:
        """Units of the intervals beyond seeds, in words; None without these intervals."""
        return next((each.beyond_seeds.over for each in self.comparisons if each.beyond_seeds is not None), None)

    @property
    def promised(self) -> ConfirmedConfig | None:
        """Config used to report the search optimism: the winner of the search, else the first choice."""
        return next((config for config in self.configs if config.winner), self.first)

    def of_first(self, *, control: str | None = None) -> list[Comparison]:
        """Return all comparisons with the first choice, or only those against the given control."""
        first, controls = self.first, {config.config_id: config.control for config in self.configs}
        own = [each for each in self.comparisons if first is not None and each.config_id == first.config_id]
        return [each for each in own if control is None or controls[each.against] == control]

    def as_dict(self) -> dict[str, Any]:
        """Return a dict that is valid JSON except for NaN."""
        comparisons = [{**asdict(each), "clear_of_zero": each.clear} for each in self.comparisons]
        averaged = {"methods": [asdict(each) for each in self.methods], "note": self.note} if self.methods else {}
        return {"configs": [asdict(each) for each in self.configs], "comparisons": comparisons, **averaged}


def pooled_spread(repeated: Sequence[Mapping[int, float]]) -> tuple[float, float]:
    """Estimate the pooled standard deviation between repetitions of a config, with the degrees of freedom.

    Repetitions with the same number share their seed, and a good seed for one config may be good for all. Many configs
    then carry little more information about seed variation than one config. The degrees of freedom are therefore
    Satterthwaite's, for the sum of two terms: the seed effect common to all configs, and the separate seed effect on
    each config. They are computed over the largest group of configs with the same seeds. If seeds have no common
    effect, the result equals the usual sum over configs, which is also the upper limit.

    Args:
        repeated: accuracies on fresh seeds for each config, by repetition number.

    Returns:
        Standard deviation and degrees of freedom; nan and 0 if no config has two repetitions.

    Source: Satterthwaite, An approximate distribution of estimates of variance components (1946).
    """
    groups = [np.array(list(group.values()), dtype=np.float64) for group in repeated if len(group) > 1]
    freedom = float(sum(len(group) - 1 for group in groups))
    if not freedom:
        return math.nan, 0.0
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    return math.sqrt(squares / freedom), min(freedom, _freedom_of_shared_seeds(repeated))


def _freedom_of_shared_seeds(repeated: Sequence[Mapping[int, float]]) -> float:
    """Compute the degrees of freedom for the variance within configs that share seeds; infinite where none do."""
    numbers = collections.Counter(frozenset(group) for group in repeated if len(group) > 1)
    (common, m), *_ = numbers.most_common(1)
    if m < 2:
        return math.inf
    table = np.array([[group[number] for number in sorted(common)] for group in repeated if group.keys() == common])
    own, of_seeds = table - table.mean(axis=1, keepdims=True), len(common) - 1
    effects = own.mean(axis=0)
    shared = float((effects**2).sum()) / of_seeds
    rest = float(((own - effects) ** 2).sum()) / ((m - 1) * of_seeds) * (m - 1) / m
    uncertainty = shared**2 / of_seeds + rest**2 / ((m - 1) * of_seeds)
    return (shared + rest) ** 2 / uncertainty if uncertainty else math.inf


def lower_bounds(candidates: Sequence[Scores], repeated: Sequence[Mapping[int, float]]) -> list[Estimate]:
    """Estimate each candidate's mean score, with a lower bound that a lucky seed alone cannot raise.

    Let s be the standard deviation between seeds of a config, pooled over all repeated configs. A config's own standard
    deviation would be mostly noise with two or three repetitions. Let t be Student's quantile for the degrees of
    freedom of s.

    - A candidate with n fresh seeds is estimated by their mean m, with interval m ± t·s/√n.
    - A candidate from the search only, with k seeds and mean y, was selected because y is high. Its estimate is
      shrunken to m = μ + B·(y − μ), with interval m ± t·s/√k. Here μ is the mean over all search scores, B =
      τ²/(τ²+s²/k), and τ² is the search score variance in excess of s². For normal scores the shrunken estimate
      would have a shorter interval, but a sampler's scores are not normal.

    Args:
        candidates: at least one candidate, each with at least one score.
        repeated: accuracies on fresh seeds for all repeated configs, candidates and controls, by repetition number.

    Returns:
        Estimates in candidate order; without bounds if no config was repeated twice.

    Source: Efron and Morris, Stein's estimation rule and its competitors (1973), for the shrinkage.
    """
    spread, freedom = pooled_spread(repeated)
    if not freedom:
        return [
            Estimate(each.value, math.nan, math.nan, len(each.fresh or each.searched), _NO_SPREAD)
            for each in candidates
        ]
    scores = np.array([np.mean(each.searched) for each in candidates if each.searched])
    centre = float(scores.mean()) if len(scores) else math.nan
    beyond = max(0.0, float(scores.var(ddof=1)) - spread**2) if len(scores) > 1 else 0.0
    quantile = t_quantile((1 + CONFIDENCE) / 2, freedom)
    estimates = []
    for each in candidates:
        n = len(each.fresh or each.searched)
        value, how = each.value, "mean over fresh seeds"
        if not each.fresh:
            noise = spread**2 / n
            share = beyond / (beyond + noise) if noise else 1.0
            value = centre + share * (value - centre)
            how = f"search score shrunken to the search's mean by {1 - share:.2f}"
        half = quantile * spread / math.sqrt(n)
        method = f"{how}, Student t interval by the pooled spread {spread:.3g} ({freedom:.3g} df), {CONFIDENCE}"
        estimates.append(Estimate(value, value - half, value + half, n, method))
    return estimates


def best_first(candidates: Sequence[Scores], bounds: Sequence[Estimate]) -> list[int]:
    """Rank candidates by lower bound and return their positions; without bounds, fresh means precede search scores."""

    def key(number: int) -> tuple[bool, float, float, int]:
        bound = bounds[number]
        unknown = math.isnan(bound.low)
        lowest = bound.value if unknown else bound.low
        return unknown and not candidates[number].fresh, -lowest, -bound.value, number

    return sorted(range(len(candidates)), key=key)


def summarise_confirmation(
    trials: pa.Table, chosen: Sequence[Mapping[str, Any]], *, baseline: str | None, seed: int = 0
) -> ConfirmationResult:
    """Summarise the trials in stage `confirm`.

    Args:
        trials: study trials.
        chosen: `config_id`, `label`, `rank`, `control`, `winner`, `bound` and `search_score` of each config, and
            `method` and `searches` if known; see `ConfirmedConfig`.
        baseline: control to compare every other config with; None to compare each ranked config with every control with
            the same student.
        seed: random seed for the bootstrap intervals.
    """
    confirmed = select(trials, stages=[CONFIRM])
    rows = {each["config_id"]: confirmed.filter(pc.equal(confirmed["config_id"], each["config_id"])) for each in chosen}
    schedules = _schedules(trials)
    configs = [_confirmed(each, rows[each["config_id"]], schedules) for each in chosen]
    methods: tuple[ConfirmedMethod, ...] = ()
    note = ""
    if any(config.searches for config in configs):
        methods, comparisons, note = _over_searches(configs, confirmed, rows, baseline, seed)
    else:
        students = {config_id: _student_of(own) for config_id, own in rows.items()}
        pairs = [
            (one, other)
            for one in configs
            for other in configs
            if one is not other
            and students[one.config_id] == students[other.config_id]
            and (
                other.control == baseline
                if baseline is not None
                else one.rank is not None and other.control is not None
            )
        ]
        comparisons = [_compare(one, other, rows, seed) for one, other in pairs]
    differences = [each.difference for each in comparisons]
    corrected, equivalence = holm_of(differences, "p_value"), holm_of(differences, "equivalence_p")
    comparisons = [
        replace(each, corrected_p=p_value, corrected_equivalence=equivalent)
        for each, p_value, equivalent in zip(comparisons, corrected, equivalence, strict=True)
    ]
    return ConfirmationResult(
        configs, comparisons, objective(trials), compares_methods=baseline is not None, methods=methods, note=note,
        schedules=schedules,
    )  # fmt: skip


def _student_of(rows: pa.Table) -> str | None:
    """Return the student architecture of a config; None before the config's first trial."""
    known: list[str | None] = rows[STUDENT].to_pylist() if STUDENT in rows.column_names else []
    return known[0] if known else None


def _schedules(trials: pa.Table) -> Schedules | None:
    """Return the numbers of epochs, if the confirmation trials differ from all other trials in this number."""
    confirmed, others = planned_epochs(trials, confirmed=True), planned_epochs(trials, confirmed=False)
    return Schedules(max(others), max(confirmed)) if confirmed and others and not confirmed & others else None


def _confirmed(chosen: Mapping[str, Any], rows: pa.Table, schedules: Schedules | None) -> ConfirmedConfig:
    test, validation = mean_score(rows, "test"), mean_score(rows, "validation")
    score = chosen["search_score"]
    comparable = None if schedules is not None else score
    return ConfirmedConfig(
        **{name: chosen[name] for name in ("config_id", "label", "rank", "control", "winner", "bound", "search_score")},
        test_accuracy=test,
        accuracy=validation,
        gap=mean_interval(numbers(rows, SHARPNESS_GAP)),
        optimism=None if comparable is None else _optimism(comparable, validation),
        optimism_on_test=None if comparable is None else _optimism(comparable, test),
        beyond_seeds=mean_beyond_seeds(rows),
        method=chosen.get("method") or "",
        searches=tuple(chosen.get("searches") or ()),
    )


def _over_searches(
    configs: Sequence[ConfirmedConfig],
    confirmed: pa.Table,
    rows: Mapping[str, pa.Table],
    baseline: str | None,
    seed: int,
) -> tuple[tuple[ConfirmedMethod, ...], list[Comparison], str]:
    """Average each method's configs over searches, and compare all methods with the baseline."""
    groups: dict[str, list[ConfirmedConfig]] = {}
    for config in configs:
        groups.setdefault(config.method, []).append(config)
    # A config found by two searches counts twice.
    averaged = {
        name: tuple(config.config_id for config in group for _ in config.searches or (1,))
        for name, group in groups.items()
    }
    columns = {
        "test": scores_by_config(confirmed, (CONFIRM,), "test"),
        "validation": scores_by_config(confirmed, (CONFIRM,), "validation"),
        "gap": gaps_by_config(confirmed, (CONFIRM,)),
    }
    found = {column: NestedScores(scores, averaged) for column, scores in columns.items()}
    measure = objective_measure(confirmed)
    methods = tuple(
        ConfirmedMethod(
            method=name,
            searches=len(averaged[name]),
            configs=averaged[name],
            rank=group[0].rank,
            control=group[0].control,
            test_accuracy=within_possible(found["test"].mean(name), measure),
            accuracy=within_possible(found["validation"].mean(name), measure),
            gap=found["gap"].mean(name),
        )
        for name, group in groups.items()
    )
    comparisons = []
    baselines = [name for name, group in groups.items() if group[0].control == baseline]
    for name, against in ((name, against) for against in baselines for name in groups if name != against):
        tables = ([rows[config_id] for config_id in averaged[side]] for side in (name, against))
        comparisons.append(
            Comparison(
                groups[name][0].config_id,
                name,
                groups[against][0].config_id,
                against,
                within_reach(found["test"].difference(name, against), measure),
                None,
                over_samples=crossed_difference(*tables, seed=seed),
                configs=averaged[name],
                against_configs=averaged[against],
            )
        )
    return methods, comparisons, spread_note(found["test"].spread, found["test"].pooled)


def _optimism(score: float, confirmed: Estimate) -> Estimate:
    """Subtract the confirmed mean from a score. The score is a constant, so only the mean contributes uncertainty."""
    method = f"score less the confirmed {confirmed.method}"
    return Estimate(score - confirmed.value, score - confirmed.high, score - confirmed.low, confirmed.n, method)


def _compare(one: ConfirmedConfig, other: ConfirmedConfig, rows: Mapping[str, pa.Table], seed: int) -> Comparison:
    own, others = (scores_by_replicate(rows[each.config_id], "test") for each in (one, other))
    shared = sorted(own.keys() & others.keys())
    paired = [own[r] for r in shared], [others[r] for r in shared]
    found = paired_difference(*paired, seed=seed, smallest_effect=SMALLEST_EFFECT)
    within = within_reach(found, objective_measure(rows[one.config_id]))
    over_samples = crossed_difference([rows[one.config_id]], [rows[other.config_id]], seed=seed)
    beyond_seeds = difference_beyond_seeds(rows[one.config_id], rows[other.config_id])
    labels = one.config_id, one.label, other.config_id, other.label
    return Comparison(*labels, within, None, over_samples=over_samples, beyond_seeds=beyond_seeds)
