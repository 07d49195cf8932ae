"""Describe estimates in words, computed from the same numbers as the tables.

An estimate is *clear* if the interval excludes 0 and the corrected test, if there is one, agrees. With few units the
two can disagree, and the estimate is then open.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from analysis.questions.association import Association
from analysis.questions.confirmation import ConfirmationResult
from analysis.questions.confirmation_words import confirmation_table
from analysis.questions.confirmation_words import verdict as verdict_of
from analysis.questions.methods import settings_of
from analysis.questions.stability import RankStability
from analysis.reading.standing import format_effect
from analysis.reading.trials import (
    BASELINE,
    REPEATED,
    SEARCH,
    ConfigSummary,
    holm_of,
    objective_note,
    of_the_search_schedule,
    planned_epochs,
    select,
    survivor_note,
    varied_fields,
)
from analysis.statistics.estimates import EXACT_PAIRS, Estimate, holm
from analysis.statistics.resampling import CONFIDENCE
from trainables.display.numbers import counted, format_number, format_percent, listed, p_bound, p_clause
from trainables.spec.own_data import short_name

Verdict: TypeAlias = Literal["up", "down", "open", "undefined"]

_LEVEL: Final = 1 - CONFIDENCE


def verdict(estimate: Estimate, corrected_p: float | None = None) -> Verdict:
    """Classify the sign of an estimate.

    Args:
        estimate: estimate with an interval.
        corrected_p: p-value corrected for multiple tests. Default: the estimate's own p-value.

    Returns:
        `up` or `down` if the sign is clear, `open` if 0 is possible, `undefined` without a value or an interval.
    """
    if not all(map(math.isfinite, (estimate.value, estimate.low, estimate.high))):
        return "undefined"
    p_value = estimate.p_value if corrected_p is None else corrected_p
    if p_value is not None and p_value > _LEVEL:
        return "open"
    return "up" if estimate.low > 0 else "down" if estimate.high < 0 else "open"


def by_verdict(
    estimate: Estimate, *, up: str, down: str, unsure: str, undefined: str, corrected_p: float | None = None
) -> str:
    """Return the phrase for the verdict on the estimate (`verdict`)."""
    return {"up": up, "down": down, "open": unsure, "undefined": undefined}[verdict(estimate, corrected_p)]


def quoted(estimate: Estimate, *, digits: int = 2, corrected_p: float | None = None) -> str:
    """Format a signed estimate with interval and n, such as `−0.68 (95% interval −0.91 to −0.04, n = 12)`."""
    return _quoted(estimate, 1.0, digits, "", corrected_p)


def quoted_points(estimate: Estimate, *, digits: int = 1, corrected_p: float | None = None) -> str:
    """Format a difference between accuracies in percentage points, with interval and n."""
    return _quoted(estimate, 100.0, digits, " points", corrected_p)


def how_many(number: int) -> str:
    """Return `none is`, `one is` or `2 are`."""
    return "none is" if not number else "one is" if number == 1 else f"{number} are"


def study_in_words(trials: pa.Table, name: str) -> str:
    """Describe a study's setting and size in a Markdown paragraph.

    Raises:
        ValueError: no trial in the study has ended.
    """
    if not trials.num_rows:
        raise ValueError(f"no trial of {name} has ended yet, so there is nothing to describe; try again later")
    searched = select(trials, stages=[SEARCH], statuses=None)
    sentences = [
        f"**{name}**: student {_only(trials, 'student')} and teacher {_only(trials, 'teacher')} on "
        f"{short_name(_only(trials, 'dataset'))}, {_only(of_the_search_schedule(trials), 'epochs_planned')} epochs per "
        f"trial{_longer(trials)}.",
        f"The search trained {counted(searched.num_rows, 'config')} once each and varied "
        f"{listed(varied_fields(trials))}."
        if searched.num_rows
        else "The study has no search.",
    ]
    sentences += [note for note in (objective_note(trials), survivor_note(trials)) if note is not None]
    stages = {
        "replicate": "promising config",
        "control": "control",
        "tune": "further kd control",
        "confirm": "confirmed config",
    }
    for stage, noun in stages.items():
        rows = select(trials, stages=[stage])
        if rows.num_rows:
            configs, seeds = (pc.count_distinct(rows[column]).as_py() for column in ("config_id", "replicate"))
            sentences.append(
                f"{counted(configs, noun)} ran on {counted(seeds, 'fresh seed')} ({rows.num_rows} trials)."
            )
    if not select(trials, stages=[*REPEATED, "confirm"]).num_rows:
        sentences.append("No config was repeated on fresh seeds, so no result here is confirmed.")
    return " ".join(sentences)


def association_in_words(found: Association) -> str:
    """Describe an association's level and configs, and the held fields."""
    configs = "searched" if found.evidence == "exploratory" else "repeated"
    held = found.held if len(found.held) < 3 else [f"{len(found.held)} fields"]
    return f"{found.level} {configs} configs" + (f", {listed(held)} held" if held else "")


def comparisons_in_words(
    summaries: Sequence[ConfigSummary], *, baseline: str = BASELINE, controls: bool = False
) -> str:
    """Compare promising configs with the baseline on fresh seeds, as a Markdown list with corrected p-values.

    The correction covers all listed configs. With few pairs, the exact test may never reach a small enough p-value for
    a clear difference. The text then states this.

    Args:
        summaries: repeated configs in the study.
        baseline: method to compare with.
        controls: include the controls, which are the compared methods in a comparison of methods.
    """
    compared = _compared(summaries, controls)
    if not compared:
        return f"No config ran on the same fresh seeds as {baseline}, so there is no comparison."
    lines = []
    equivalence = [math.nan if p is None else p for p in holm_of([each[1] for each in compared], "equivalence_p")]
    for (each, against, p_value), equivalent in zip(compared, equivalence, strict=True):
        aside = "above" if against.low > 0 else "below" if against.high < 0 else ""
        unsure = f"not distinguishable from {baseline}"
        if against.is_equivalent(equivalent):
            assert against.smallest_effect is not None
            unsure = f"no better and no worse than {baseline} by {format_effect(against.smallest_effect)} or more"
        finding = by_verdict(
            against, up=f"better than {baseline}", down=f"worse than {baseline}", corrected_p=p_value,
            unsure=f"the interval lies {aside} 0, but the corrected test is not significant" if aside else unsure,
            undefined=f"too few seeds for an interval of the difference from {baseline}",
        )  # fmt: skip
        settings = settings_of(each) if len(each.varied) < 4 else ""
        named = f"{each.name} ({settings})" if settings else each.name
        if controls and not named.startswith(each.method):
            named = f"{each.method}, {named}"
        lines.append(f"- {named}: {quoted_points(against, corrected_p=p_value)}; {finding}.")
    return "\n".join([*lines, *_too_few(compared)])


def comparisons_in_brief(
    summaries: Sequence[ConfigSummary], *, baseline: str = BASELINE, controls: bool = False
) -> str:
    """Summarise the same comparisons in one sentence, with the numbers of clearly better and clearly worse configs."""
    compared = _compared(summaries, controls)
    if not compared:
        return f"no config ran on the same fresh seeds as {baseline}"
    verdicts = [verdict(against, p_value) for _, against, p_value in compared]
    seeds = sorted({against.n for _, against, _ in compared})
    return (
        f"of {counted(len(compared), 'config')} on {' to '.join(map(str, (seeds[0], seeds[-1])[: len(seeds)]))} "
        f"fresh seeds, {how_many(verdicts.count('up'))} clearly better than {baseline} and "
        f"{how_many(verdicts.count('down'))} clearly worse"
        + (" (with so few seeds, none could have been clear)" if _too_few(compared) else "")
    )


def _compared(summaries: Sequence[ConfigSummary], controls: bool) -> list[tuple[ConfigSummary, Estimate, float]]:
    """Return the compared configs, each with the difference to the baseline and the corrected p-value."""
    pairs = [(each, each.against_baseline) for each in summaries if controls or each.stage != "control"]
    known = [(each, against) for each, against in pairs if against is not None]
    p_values = holm([math.nan if against.p_value is None else against.p_value for _, against in known])
    return [(each, against, p_value) for (each, against), p_value in zip(known, p_values, strict=True)]


def _too_few(compared: Sequence[tuple[ConfigSummary, Estimate, float]]) -> list[str]:
    """Return a sentence if the study has too few pairs for any difference to be clear; else an empty list."""
    n = max(against.n for _, against, _ in compared)
    smallest = 2 / 2**n
    floor = min(1.0, len(compared) * smallest)
    if n > EXACT_PAIRS or floor <= _LEVEL:
        return []
    corrected = (
        f", nor below {p_bound(floor)} once corrected for {len(compared)} comparisons" if len(compared) > 1 else ""
    )
    return [
        f"\nNo difference could have been clear here, however large: the p-value of the exact test of "
        f"{counted(n, 'pair')} cannot fall below {p_bound(smallest)}{corrected}. A clear result needs more seeds."
    ]


def stability_in_words(stability: RankStability, names: Mapping[str, str]) -> str:
    """Describe the agreement between seeds on the order of the repeated configs.

    Args:
        stability: a study's rank stability.
        names: config names by digest.
    """
    if not math.isfinite(stability.agreement.value):
        return f"The agreement between seeds on the order of configs is undefined for {stability.note}."
    config_id, share = next(iter(stability.best.items()))
    return (
        f"Over {stability.note}, the mean rank correlation between two seeds on the order of configs is "
        f"{quoted(stability.agreement)}; {names.get(config_id, config_id)} has the highest mean in "
        f"{format_percent(share)} of the resamples of seeds."
    )


def _quoted(estimate: Estimate, factor: float, digits: int, unit: str, corrected_p: float | None) -> str:
    if not math.isfinite(estimate.value):
        return f"undefined (n = {estimate.n})"
    value, low, high = (
        format_number(factor * each, digits, signed=True) for each in (estimate.value, estimate.low, estimate.high)
    )
    interval = f"{format_percent(CONFIDENCE)} interval {low} to {high}" if low and high else "no interval"
    p_value = p_clause(corrected_p, "after Holm's correction") or p_clause(estimate.p_value)
    return f"{value}{unit} ({interval}{p_value}, n = {estimate.n})"


def _longer(trials: pa.Table) -> str:
    longer = sorted(planned_epochs(trials, confirmed=True) - planned_epochs(trials, confirmed=False))
    return f", {listed([str(each) for each in longer])} per confirmed trial" if longer else ""


def _only(trials: pa.Table, name: str) -> str:
    return listed([str(each) for each in dict.fromkeys(trials[name].to_pylist()) if each is not None])


def confirmed_in_words(found: ConfirmationResult | None, name: str) -> str:
    """Describe the confirmation result on the test split as Markdown, or state that there is none.

    Args:
        found: complete confirmation, else None.
        name: study name.
    """
    if found is None:
        command = f"python -m study.confirm {name}"
        return f"The test split of {name} was not evaluated: no confirmation is complete (`{command}`)."
    return "\n\n".join(["Confirmed, on the test split:", *verdict_of(found), confirmation_table(found)])
