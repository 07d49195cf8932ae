"""A confirmation: by which bound its configs are chosen, and what they reached on fresh seeds and the test split.

A search's best score is the largest of many noisy numbers and says more of its seed than of its config. Configs are
therefore chosen by a lower bound of what they reach on average. On the seeds of the confirmation nothing was chosen:
means there are honest, and what the score promised beyond them is the winner's optimism.
"""

import collections
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import stats

from analysis.reading.trials import (
    CONFIRM,
    SHARPNESS_GAP,
    mean_score,
    numbers,
    objective,
    objective_measure,
    select,
    trial_scores,
    within_reach,
)
from analysis.statistics.estimates import Estimate, holm, mean_interval, paired_difference
from analysis.statistics.resampling import CONFIDENCE

_NO_SPREAD: Final = "no bound: nothing was repeated on two seeds, so what a seed does is not known"


@dataclass(frozen=True)
class Scores:
    """What a config has reached so far.

    Args:
        searched: validation accuracies in the search, on the seeds that configs were picked by.
        fresh: the same on seeds that nothing was picked by.
    """

    searched: tuple[float, ...] = ()
    fresh: tuple[float, ...] = ()

    @property
    def value(self) -> float:
        """Their mean, of the fresh ones alone where there are any."""
        return float(np.mean(self.fresh or self.searched))


@dataclass(frozen=True)
class ConfirmedConfig:
    """One config of a confirmation.

    Args:
        config_id: digest of the config.
        label: what tables call it.
        rank: its place by the bound, from 1; None for what is there beside the chosen ones.
        control: the control that it is, if it is one.
        winner: whether its one score was the best of the search.
        test_accuracy: the objective on the test split over the seeds of the confirmation, as the next three; a
            fraction where it is accuracy.
        accuracy: on the validation split.
        gap: sharpness gap in nats; n is 0 for a method without one.
        bound: what it was chosen by, an estimate with its lower bound; None for a control.
        search_score: the validation accuracy that it had before; None where it was never tried.
        optimism: that score less `accuracy`; None without a score.
        optimism_on_test: that score less `test_accuracy`.
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


@dataclass(frozen=True)
class Comparison:
    """Accuracy, or what is the objective, on the test split of one config less another's, paired by seed.

    Args:
        config_id: of the one.
        label: its own.
        against: of the other.
        against_label: its own.
        difference: in accuracy, a fraction.
        corrected_p: by Holm's method, for all comparisons of the confirmation; None where there is no p.
    """

    config_id: str
    label: str
    against: str
    against_label: str
    difference: Estimate
    corrected_p: float | None

    @property
    def clear(self) -> bool:
        """Whether the interval lies above zero."""
        return self.difference.low > 0


@dataclass(frozen=True)
class ConfirmationResult:
    """What a confirmation found: its configs, as they were chosen, and every comparison that was planned.

    `objective` is what all of them are compared by, in words.
    """

    configs: list[ConfirmedConfig]
    comparisons: list[Comparison]
    objective: str = "accuracy"

    @property
    def first(self) -> ConfirmedConfig | None:
        """The first choice."""
        return next((config for config in self.configs if config.rank == 1), None)

    @property
    def promised(self) -> ConfirmedConfig | None:
        """Whose score before says what the search promised: its winner, else the first choice."""
        return next((config for config in self.configs if config.winner), self.first)

    def of_first(self, *, control: str | None = None) -> list[Comparison]:
        """The first choice's comparisons, all of them or those with that control."""
        first, controls = self.first, {config.config_id: config.control for config in self.configs}
        own = [each for each in self.comparisons if first is not None and each.config_id == first.config_id]
        return [each for each in own if control is None or controls[each.against] == control]

    def as_dict(self) -> dict[str, Any]:
        """As JSON takes it, but for NaN."""
        comparisons = [{**asdict(each), "clear_of_zero": each.clear} for each in self.comparisons]
        return {"configs": [asdict(each) for each in self.configs], "comparisons": comparisons}


def pooled_spread(repeated: Sequence[Mapping[int, float]]) -> tuple[float, float]:
    """Standard deviation of a config's repetitions, pooled over configs, and its degrees of freedom.

    Repetitions of one number share their seeds, and a seed that is kind to one config may be kind to all: then many
    configs tell little more of how seeds differ than one does. The degrees of freedom are Satterthwaite's for the sum
    of what seeds do to all configs and what they do to each, over the configs that ran on the seeds which most ran on;
    where seeds do nothing to all alike, that comes to the usual sum over configs.

    Args:
        repeated: of each config its accuracies on fresh seeds, by the number of the repetition.

    Returns:
        nan and 0 where no config has two.

    Source: Satterthwaite, An approximate distribution of estimates of variance components (1946).
    """
    groups = [np.array(list(group.values()), dtype=np.float64) for group in repeated if len(group) > 1]
    freedom = float(sum(len(group) - 1 for group in groups))
    if not freedom:
        return math.nan, 0.0
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    return math.sqrt(squares / freedom), min(freedom, _freedom_of_shared_seeds(repeated))


def _freedom_of_shared_seeds(repeated: Sequence[Mapping[int, float]]) -> float:
    """Degrees of freedom of the variance within configs that share seeds; infinite where none do."""
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
    """What each candidate reaches on average, with a bound that a lucky seed alone does not lift.

    Let s be the standard deviation between a config's seeds, pooled over everything that was repeated (with two or
    three repetitions a config's own would be noise), and t Student's quantile at its degrees of freedom. A candidate
    with n fresh seeds is estimated by their mean m, with the interval m ± t·s/√n. One that was only searched, on k
    seeds with mean y, was seen because y is high: it is estimated by m = μ + B·(y − μ), with μ the mean of all search
    scores, B = τ²/(τ² + s²/k), and τ² what their variance has beyond s². Its interval is m ± t·s/√k: the shrunken
    estimate is surer than that if scores are normal, which those of a sampler are not.

    Args:
        candidates: one at least, each with a score at least.
        repeated: accuracies on fresh seeds of everything that was repeated, candidates and controls, by the number
            of the repetition.

    Returns:
        Estimates in the order of the candidates; without bounds where nothing was repeated twice.

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
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))
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
    """Positions of the candidates by their lower bounds; where there are none, by fresh means before search scores."""

    def key(number: int) -> tuple[bool, float, float, int]:
        bound = bounds[number]
        unknown = math.isnan(bound.low)
        lowest = bound.value if unknown else bound.low
        return unknown and not candidates[number].fresh, -lowest, -bound.value, number

    return sorted(range(len(candidates)), key=key)


def summarise_confirmation(
    trials: pa.Table, chosen: Sequence[Mapping[str, Any]], *, baseline: str | None, seed: int = 0
) -> ConfirmationResult:
    """What the trials of stage `confirm` say.

    Args:
        trials: of the study.
        chosen: of each config `config_id`, `label`, `rank`, `control`, `winner`, `bound` and `search_score`; see
            `ConfirmedConfig`.
        baseline: the control that every other config is compared with; None to compare each ranked config with
            every control.
        seed: of the bootstrap intervals.
    """
    confirmed = select(trials, stages=[CONFIRM])
    rows = {each["config_id"]: confirmed.filter(pc.equal(confirmed["config_id"], each["config_id"])) for each in chosen}
    configs = [_confirmed(each, rows[each["config_id"]]) for each in chosen]
    pairs = [
        (one, other)
        for one in configs
        for other in configs
        if one is not other
        and (other.control == baseline if baseline is not None else one.rank is not None and other.control is not None)
    ]
    comparisons = [_compare(one, other, rows, seed) for one, other in pairs]
    p_values = [math.nan if each.difference.p_value is None else each.difference.p_value for each in comparisons]
    return ConfirmationResult(
        configs,
        [
            replace(each, corrected_p=None if math.isnan(p_value) else p_value)
            for each, p_value in zip(comparisons, holm(p_values), strict=True)
        ],
        objective(trials),
    )


def _confirmed(chosen: Mapping[str, Any], rows: pa.Table) -> ConfirmedConfig:
    test, validation = mean_score(rows, "test"), mean_score(rows, "validation")
    score = chosen["search_score"]
    return ConfirmedConfig(
        **{name: chosen[name] for name in ("config_id", "label", "rank", "control", "winner", "bound", "search_score")},
        test_accuracy=test,
        accuracy=validation,
        gap=mean_interval(numbers(rows, SHARPNESS_GAP)),
        optimism=None if score is None else _optimism(score, validation),
        optimism_on_test=None if score is None else _optimism(score, test),
    )


def _optimism(score: float, confirmed: Estimate) -> Estimate:
    """A score less what was confirmed: the score is a number that stands, the mean alone is uncertain."""
    method = f"score less the confirmed {confirmed.method}"
    return Estimate(score - confirmed.value, score - confirmed.high, score - confirmed.low, confirmed.n, method)


def _compare(one: ConfirmedConfig, other: ConfirmedConfig, rows: Mapping[str, pa.Table], seed: int) -> Comparison:
    own, others = (
        dict(zip(table["replicate"].to_pylist(), trial_scores(table, "test").tolist(), strict=True))
        for table in (rows[one.config_id], rows[other.config_id])
    )
    shared = sorted(own.keys() & others.keys())
    difference = paired_difference([own[r] for r in shared], [others[r] for r in shared], seed=seed)
    within = within_reach(difference, objective_measure(rows[one.config_id]))
    return Comparison(one.config_id, one.label, other.config_id, other.label, within, None)


def confirmation_table(result: ConfirmationResult) -> str:
    """The confirmation as Markdown: its configs, its comparisons, and the methods of its estimates."""
    words = result.objective
    heads = ["config", "n", f"test {words}", f"val {words}", "score before", "optimism (score − val)"]
    lines = [_row(heads), "|" + " --- |" * len(heads)]
    for config in result.configs:
        score = "" if config.search_score is None else f"{config.search_score:.3f}"
        optimism = "" if config.optimism is None else with_interval(config.optimism, sign="+")
        accuracies = (with_interval(config.test_accuracy), with_interval(config.accuracy))
        lines.append(_row([described(config), str(config.test_accuracy.n), *accuracies, score, optimism]))
    if result.comparisons:
        lines += [
            "",
            _row([f"test {words} of", "less that of", "n", "difference", "p", "p (Holm)"]),
            "|" + " --- |" * 6,
        ]
    for each in result.comparisons:
        p_values = (each.difference.p_value, each.corrected_p)
        cells = [each.label, each.against_label, str(each.difference.n), with_interval(each.difference, sign="+")]
        lines.append(_row([*cells, *("" if p is None else f"{p:.3g}" for p in p_values)]))
    methods = {each.difference.method for each in result.comparisons}
    methods |= {config.test_accuracy.method for config in result.configs}
    return "\n".join([*lines, "", *(f"- {note}." for note in sorted(methods))])


def described(config: ConfirmedConfig) -> str:
    """A config's label, and why it is there if it is none of the chosen."""
    roles = ["control"] if config.control is not None and config.rank is None else []
    roles += ["the search's winner"] if config.winner else []
    return f"{config.label} ({', '.join(roles)})" if roles else config.label


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def with_interval(estimate: Estimate, *, sign: str = "") -> str:
    """An estimate with its interval in words; nothing where it rests on nothing."""
    if not estimate.n:
        return ""
    interval = "" if math.isnan(estimate.low) else f" [{estimate.low:{sign}.3f}, {estimate.high:{sign}.3f}]"
    return f"{estimate.value:{sign}.3f}{interval}"


def verdict(result: ConfirmationResult) -> list[str]:
    """The answer in sentences: the first choice against each control, and what the search's winner promised."""
    texts = [
        f"{each.label} {standing(each)} {each.against_label} on the test split: "
        f"{with_interval(each.difference, sign='+')}, n = {each.difference.n}{_p_text(each)}."
        for each in result.of_first()
    ]
    winner = result.promised
    if winner is not None and winner.optimism is not None and winner.optimism_on_test is not None and winner.optimism.n:
        which = "The search's winner" if winner.winner else "The first choice"
        texts.append(
            f"{which}, {winner.label}, had scored {winner.search_score:.3f} before; on {winner.optimism.n} fresh seeds "
            f"it reaches {with_interval(winner.accuracy)} on the validation split: optimism "
            f"{with_interval(winner.optimism, sign='+')}, and {with_interval(winner.optimism_on_test, sign='+')} "
            "against the test split."
        )
    return texts


def standing(comparison: Comparison) -> str:
    """How the one stands to the other, by the interval and, if that is clear of zero, by the corrected p as well."""
    worse = comparison.difference.high < 0
    if not (comparison.clear or worse):
        return "is not clearly different from"
    words = "is worse than" if worse else "is better than"
    tested = comparison.corrected_p is not None and comparison.corrected_p < 1 - CONFIDENCE
    return words if tested else f"by the interval, though not by the corrected p, {words}"


def _p_text(comparison: Comparison) -> str:
    if comparison.corrected_p is None:
        return ""
    return f", p = {comparison.difference.p_value:.2g} ({comparison.corrected_p:.2g} by Holm)"
