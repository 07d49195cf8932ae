"""Answer to a study's question in a few sentences, with the evidence behind it.

The verdict comes first: the standing of the methods, or of the best config, against the baseline. The detail follows:
the best method's scores, or the results on the sharpness gap. Both sentences about methods rest on the same rows.
Confirmed results take precedence over repeated ones, and repeated results over searched ones.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from analysis.figures.study import GapAgainstAccuracy
from analysis.questions.confirmation import Comparison, ConfirmationResult, ConfirmedConfig
from analysis.questions.confirmation_words import standing
from analysis.questions.intervention import ImposedGap
from analysis.questions.methods import config_label, split_of
from analysis.questions.power import Resolution
from analysis.reading.standing import Standing, all_standings_in_words, standing_in_words, standing_of
from analysis.reading.trials import BASELINE, SEARCH, ConfigSummary, select, trial_scores
from analysis.report.folder import StudyFolder
from analysis.statistics.power import POWER
from trainables.display.numbers import (
    NETWORK_PLACES,
    counted,
    format_correlation,
    format_difference,
    format_estimate,
    format_number,
    format_slope,
    p_clause,
)

Basis = Literal["confirmed", "repeated", "searched", "nothing"]
_RESTS_ON: Final[dict[Basis, str]] = {
    "confirmed": "Confirmed: test split, evaluated once, on fresh seeds that were not used for any choice.",
    "repeated": "Repeated: validation split, on fresh seeds; the test split was not evaluated.",
    "searched": "Exploratory: validation split, one seed per config, which also selected the config.",
    "nothing": "No trial has finished.",
}
_HEADLINES: Final[dict[str, str]] = {
    "better": f"Better than {BASELINE}",
    "worse": f"Worse than {BASELINE}",
    "equivalent": f"No better and no worse than {BASELINE}",
    "open": f"Not distinguishable from {BASELINE}",
    "none": "No comparison",
}
_HIGHEST: Final = " The highest of several means is slightly biased upwards."


@dataclass(frozen=True)
class Answer:
    """Answer to a study's question.

    Args:
        standing: `better`, `worse` or `equivalent`; `open` if not distinguishable; `none` without a comparison.
        verdict: standing of the methods, or of the best config, against the baseline.
        detail: scores of the best method, or results on the sharpness gap.
        basis: evidence behind the verdict.
        rests_on: `basis` in words.
    """

    standing: Standing | Literal["none"]
    verdict: str
    detail: str
    basis: Basis
    rests_on: str

    @property
    def headline(self) -> str:
        """The verdict in a few words."""
        return "No answer yet" if self.basis == "nothing" else _HEADLINES[self.standing]


def answer(
    study: StudyFolder,
    configs: Sequence[ConfigSummary],
    confirmed: ConfirmationResult | None,
    confirmed_methods: Sequence[ConfigSummary],
    found: GapAgainstAccuracy,
    arms: Sequence[ImposedGap],
    resolution: Resolution | None = None,
) -> Answer:
    """Write the answer to a study's question.

    Args:
        study: the study.
        configs: repeated configs, in table order.
        confirmed: complete confirmation, if there is one.
        confirmed_methods: confirmed methods, in a comparison of methods.
        found: gap against accuracy over the search.
        arms: arms of an imposed gap, if the study has any.
        resolution: detectable difference with the study's seeds; None without a comparison.
    """
    rows = confirmed_methods or configs
    if study.compares_methods and rows:
        basis: Basis = "confirmed" if confirmed_methods else "repeated"
        stands = _standing_of_methods(rows)
        verdict = _all_methods(rows) + _detectable(stands, resolution)
        return Answer(stands, verdict, _best_method(rows), basis, _RESTS_ON[basis] + _HIGHEST * (len(rows) > 1))
    stands, verdict, basis = _best(study, configs, confirmed)
    highest = _HIGHEST if basis == "repeated" and len(_promising(configs)) > 1 else ""
    return Answer(
        stands, verdict + _detectable(stands, resolution), _gap(found, arms), basis, _RESTS_ON[basis] + highest
    )


def _standing_of_methods(rows: Sequence[ConfigSummary]) -> Standing | Literal["none"]:
    """Return `better` if one method is, `worse` or `equivalent` if all are, else `open`."""
    found = {
        standing_of(each.against_baseline, each.corrected_p, each.corrected_equivalence)
        for each in rows
        if each.against_baseline is not None and each.against_baseline.n
    }
    if not found:
        return "none"
    return "better" if "better" in found else found.pop() if len(found) == 1 else "open"


def _detectable(stands: str, resolution: Resolution | None) -> str:
    """Return the least detectable difference as a sentence, if the verdict is open."""
    if stands != "open" or resolution is None or not resolution.spreads:
        return ""
    tests = len(resolution.compared)
    after = f"after Holm's correction for {tests} comparisons" if tests > 1 else ""
    if few := resolution.too_few(corrected=tests > 1):
        seeds = counted(resolution.seeds, "seed")
        return f" No difference is detectable with n = {seeds}{after and f' {after}'}: {few}."
    size = format_number(resolution.detectable(corrected=tests > 1), NETWORK_PLACES)
    how = f"n = {counted(resolution.seeds, 'seed')}, power {POWER:g}{after and f', {after}'}"
    return f" Least detectable difference: {size} ({how})."


def _best(
    study: StudyFolder, configs: Sequence[ConfigSummary], confirmed: ConfirmationResult | None
) -> tuple[Standing | Literal["none"], str, Basis]:
    first = None if confirmed is None else confirmed.first
    if confirmed is not None and first is not None and first.test_accuracy.n:
        return _standing_of_first(confirmed), _of_confirmed(first, confirmed), "confirmed"
    if rows := _promising(configs):
        against = rows[0].against_baseline
        return "none" if against is None or not against.n else standing_of(against), _of_repeated(rows), "repeated"
    searched = select(study.records.trials, stages=[SEARCH])
    scores = [score for score in trial_scores(searched).tolist() if math.isfinite(score)]
    if not scores:
        return "none", "No trial has finished, so there is no answer yet.", "nothing"
    one = len(scores) == 1
    sentence = (
        f"{'The only finished config' if one else f'The best of {len(scores)} finished configs'} scored "
        f"{format_number(max(scores))} on one seed. No config was repeated, so there is no interval."
    )
    return "none", sentence, "searched"


def _standing_of_first(confirmed: ConfirmationResult) -> Standing | Literal["none"]:
    """Return the first choice's standing against the baseline."""
    own = [each for each in confirmed.of_first(control=BASELINE) if each.difference.n]
    if not own:
        return "none"
    return standing_of(own[0].difference, own[0].corrected_p, own[0].corrected_equivalence)


def _promising(configs: Sequence[ConfigSummary]) -> list[ConfigSummary]:
    """Return the repeated configs from the search, best first."""
    return sorted((each for each in configs if each.stage == "replicate"), key=lambda each: -each.accuracy.value)


def _of_confirmed(first: ConfirmedConfig, confirmed: ConfirmationResult) -> str:
    """Describe the first choice, made before the test split was read, and the config with the best mean."""
    controls = {each.config_id: each.control for each in confirmed.configs}
    own = [each for each in confirmed.of_first() if each.difference.n]
    own.sort(key=lambda each: controls[each.against] != BASELINE)
    verdict = f"{first.label} {standing(own[0])}: {_tested(own[0])}" if own else f"{first.label} has no comparison"
    reached = f"test {confirmed.objective} of {format_estimate(first.test_accuracy)} over {first.test_accuracy.n} seeds"
    measured = [each for each in confirmed.configs if each.test_accuracy.n]
    highest = max(measured, key=lambda each: each.test_accuracy.value)
    sentence = f"{verdict}. As the first choice, it reaches a {reached}."
    if highest is first:
        return sentence
    of_highest = f"{highest.label}, with {format_estimate(highest.test_accuracy)}"
    return f"{sentence} The highest mean of {len(measured)} confirmed configs is that of {of_highest}."


def _tested(comparison: Comparison) -> str:
    return f"{format_difference(comparison.difference)} by seed{p_clause(comparison.corrected_p, 'by Holm')}"


def _of_repeated(rows: Sequence[ConfigSummary]) -> str:
    """Describe the first repeated config, with configs sorted best first."""
    row = rows[0]
    name = config_label(row) + (f", the best of {len(rows)} promising configs," if len(rows) > 1 else "")
    reached = f"mean {row.objective} of {format_estimate(row.accuracy)} over {row.accuracy.n} seeds"
    against = row.against_baseline
    if against is None or not against.n:
        return f"{name} reaches a {reached}; there is no comparison."
    tested = f"{format_difference(against)} by seed{p_clause(against.p_value, 'uncorrected')}"
    return f"{name} {standing_in_words(against, BASELINE, test='the p-value')}: {tested}. It reaches a {reached}."


def _all_methods(rows: Sequence[ConfigSummary]) -> str:
    compared = [
        (each.method, each.against_baseline, each.corrected_p, each.corrected_equivalence)
        for each in rows
        if each.against_baseline is not None
    ]
    return all_standings_in_words(compared, BASELINE)


def _best_method(rows: Sequence[ConfigSummary]) -> str:
    """Describe the method with the highest mean."""
    row = max(rows, key=lambda each: each.accuracy.value)
    words = f"{'test' if split_of(rows) == 'test' else 'validation'} {row.objective}"
    of_all = (
        f"Of {counted(len(rows), 'method')}, {row.method} has the highest" if len(rows) > 1 else f"{row.method} has a"
    )
    reached = f"{of_all} mean {words}, {format_estimate(row.accuracy)} over {row.accuracy.n} seeds"
    against = row.against_baseline
    if against is None or not against.n:
        role = " and is the baseline of the comparisons" if row.method == BASELINE else ""
        return f"{reached}{role}."
    stands = standing_in_words(against, BASELINE, row.corrected_p, row.corrected_equivalence)
    paired = "by seed" if row.searches == 1 else "over seeds and searches"
    return f"{reached}, and {stands}: {format_difference(against)} {paired}{p_clause(row.corrected_p, 'by Holm')}."


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
    """Describe the effect of an imposed gap, by the first available arm in the order centred, paper, placebo."""
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
