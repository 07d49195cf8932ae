"""Answer to a study's question in two sentences, with the evidence behind it.

The first sentence is about the best config or method. The second sentence is about the sharpness gap, or about all
methods if methods are compared. Confirmed results take precedence over repeated ones, and repeated results over
searched ones.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from analysis.figures.study import GapAgainstAccuracy
from analysis.questions.confirmation import Comparison, ConfirmationResult, ConfirmedConfig, standing
from analysis.questions.intervention import ImposedGap
from analysis.questions.methods import config_label
from analysis.reading.trials import BASELINE, SEARCH, ConfigSummary, select, trial_scores
from analysis.report.folder import StudyFolder
from analysis.statistics.estimates import Estimate
from trainables.display.numbers import (
    format_correlation,
    format_difference,
    format_estimate,
    format_number,
    format_slope,
    p_clause,
)

Basis = Literal["confirmed", "repeated", "searched", "nothing"]
_LEVEL: Final = 0.05
_RESTS_ON: Final[dict[Basis, str]] = {
    "confirmed": "Confirmed: test split, evaluated once, on fresh seeds that were not used for any choice.",
    "repeated": "Repeated: validation split, on fresh seeds; the test split was not evaluated. The best of several "
    "means is slightly biased upwards.",
    "searched": "Exploratory: validation split, one seed per config, which also selected the config.",
    "nothing": "No trial has finished.",
}


@dataclass(frozen=True)
class Answer:
    """Answer to the question of a study.

    Args:
        best: first sentence.
        gap: second sentence.
        basis: evidence behind the first sentence.
        rests_on: `basis` in words.
    """

    best: str
    gap: str
    basis: Basis
    rests_on: str


def answer(
    study: StudyFolder,
    configs: Sequence[ConfigSummary],
    confirmed: ConfirmationResult | None,
    found: GapAgainstAccuracy,
    arms: Sequence[ImposedGap],
) -> Answer:
    """Write the answer of a study.

    Args:
        study: the study.
        configs: repeated configs, in table order.
        confirmed: result of the confirmation, if it is complete.
        found: gap against accuracy over the search.
        arms: arms of an imposed gap, if the study has any.
    """
    best, basis = _best(study, configs, confirmed)
    second = _all_methods(configs) if study.compares_methods else _gap(found, arms)
    return Answer(best, second, basis, _RESTS_ON[basis])


def _best(
    study: StudyFolder, configs: Sequence[ConfigSummary], confirmed: ConfirmationResult | None
) -> tuple[str, Basis]:
    first = None if confirmed is None else confirmed.first
    if confirmed is not None and first is not None and first.test_accuracy.n:
        return _of_confirmed(first, confirmed), "confirmed"
    rows = [each for each in configs if study.compares_methods or each.stage == "replicate"]
    rows = sorted(rows, key=lambda each: -each.accuracy.value)
    if rows:
        return _of_repeated(rows, compares=study.compares_methods), "repeated"
    searched = select(study.records.trials, stages=[SEARCH])
    scores = [score for score in trial_scores(searched).tolist() if math.isfinite(score)]
    if not scores:
        return "No trial has finished, so there is no answer yet.", "nothing"
    one = len(scores) == 1
    sentence = (
        f"{'The only finished config' if one else f'The best of {len(scores)} finished configs'} scored "
        f"{format_number(max(scores))} on one seed. No config was repeated, so there is no interval."
    )
    return sentence, "searched"


def _of_confirmed(first: ConfirmedConfig, confirmed: ConfirmationResult) -> str:
    reached = (
        f"{first.label} reaches a test {confirmed.objective} of {format_estimate(first.test_accuracy)} over "
        f"{first.test_accuracy.n} seeds"
    )
    controls = {each.config_id: each.control for each in confirmed.configs}
    own = [each for each in confirmed.of_first() if each.difference.n]
    own.sort(key=lambda each: controls[each.against] != BASELINE)
    if not own:
        return f"{reached}; there is no comparison."
    return f"{reached} and {standing(own[0])} {own[0].against_label}: {_tested(own[0])}."


def _tested(comparison: Comparison) -> str:
    return f"{format_difference(comparison.difference)} by seed{p_clause(comparison.corrected_p, 'by Holm')}"


def _of_repeated(rows: Sequence[ConfigSummary], *, compares: bool) -> str:
    """Describe the first of the repeated configs, which are sorted with the best first."""
    row = rows[0]
    among = f"Of {len(rows)} {'methods' if compares else 'promising configs'} " if len(rows) > 1 else ""
    name = row.method if compares else config_label(row)
    reached = f"{among}{name} reaches {'the highest' if among else 'a'} mean {row.objective}{'' if among else ' of'}"
    reached += f"{',' if among else ''} {format_estimate(row.accuracy)} over {row.accuracy.n} seeds"
    against = row.against_baseline
    if against is None or not against.n:
        role = " and is the baseline of the comparisons" if row.method == BASELINE else ""
        return f"{reached}{role}."
    p_value = row.corrected_p if compares else against.p_value
    tested = p_clause(p_value, "by Holm" if compares else "uncorrected")
    return f"{reached}, and {_standing(against, p_value)} {BASELINE}: {format_difference(against)} by seed{tested}."


def _standing(difference: Estimate, p_value: float | None) -> str:
    """Describe the difference by the interval; the p-value can qualify the statement."""
    if not (difference.low > 0 or difference.high < 0):
        return "is not clearly different from"
    words = "lies above" if difference.low > 0 else "lies below"
    return words if p_value is not None and p_value < _LEVEL else f"by the interval, though not by the p-value, {words}"


def _all_methods(configs: Sequence[ConfigSummary]) -> str:
    others = [each for each in configs if each.against_baseline is not None]
    if not others:
        return f"No other method can be compared with {BASELINE}."
    tested = [each for each in others if each.corrected_p is not None and each.corrected_p < _LEVEL]
    better = [each.method for each in tested if each.against_baseline and each.against_baseline.value > 0]
    worse, rest = len(tested) - len(better), len(others) - len(tested)
    named = f" ({', '.join(better)})" if better else ""
    return (
        f"Of {len(others)} other {'method' if len(others) == 1 else 'methods'} {len(better)}{named} "
        f"{'is' if len(better) == 1 else 'are'} better than {BASELINE} and {worse} worse by corrected "
        f"p-values; {rest} {'is' if rest == 1 else 'are'} not clearly different on these seeds."
    )


def _gap(found: GapAgainstAccuracy, arms: Sequence[ImposedGap]) -> str:
    defined = [each for each in arms if math.isfinite(each.effect.value)]
    if defined:
        return _imposed(defined)
    if len(arms) > 1:  # A correlation over all arms would reflect the differences between arms.
        return f"The effect of the imposed gap on {found.objective} is undefined: no arm has different targets."
    correlation = found.correlation
    if math.isnan(correlation.value):
        why = "too few trials have finished, or one of them does not vary"
        return f"The correlation of gap and {found.objective} is undefined: {why}."
    association = f"configs, there is no clear association of the sharpness gap with {found.objective}"
    if correlation.high < 0:
        association = f"configs, those with a smaller sharpness gap had the higher {found.objective}"
    elif correlation.low > 0:
        association = f"configs, those with a larger sharpness gap had the higher {found.objective}"
    value = format_correlation(correlation)
    when = "" if found.epoch is None else f", at epoch {found.epoch}, the last epoch that all of them reached"
    basis = f"exploratory, validation split{when}"
    return f"Over the {correlation.n} searched {association}: rank correlation {value}, {basis}."


def _imposed(arms: Sequence[ImposedGap]) -> str:
    """Describe the effect of an imposed gap, by the first of the arms in the order centred, paper, placebo."""
    decisive = arms[0].effect
    effect = f"An imposed gap has no clear effect on the student's {arms[0].objective}"
    if arms[0].control == "placebo":
        effect = "Only the placebo arm, which does not affect the student, has trials"
    elif decisive.high < 0:
        effect = "A smaller imposed gap made a better student"
    elif decisive.low > 0:
        effect = "A smaller imposed gap made a worse student"
    parts = [f"{format_slope(each.effect)} per nat of target ({each.control}, n = {each.effect.n})" for each in arms]
    return f"{effect}: {arms[0].objective} changes by {', '.join(parts)}; {arms[0].evidence}, validation split."
