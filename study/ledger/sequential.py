"""Trials of a confirmation with seeds added until every comparison is decided or the largest number is reached.

Methods with the best configs from several searches are compared by the mean of these configs on each seed. Seeds cannot
reduce the luck in the searches, so the decisions hold for the found configs.

The recorded results alone determine which trials are due. A resumed study therefore continues where it stopped, and
every reader of the journal finds the same decisions. `analysis.statistics.sequential` describes the rule.
"""

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from study.ledger.confirmation import Choice, Confirmation
from study.plan.methods import BASELINE
from study.plan.stages import PlannedTrial, Stage
from trainables.display.numbers import counted, listed
from trainables.spec.measures import objective_of
from trainables.spec.trial import TrialConfig

_WORDS: Final = {
    "better": "better than {against}",
    "worse": "worse than {against}",
    "small": "not more than {detect:g} from {against}",
    None: "not decided against {against}",
}
_OF_THE_CONFIGS: Final = (
    " The decisions hold for the configs found, and intervals over seeds and searches for the methods with their "
    "searches."
)


class Confirmed(Protocol):
    """Confirmation trial with the attributes needed here; implemented by `study.ledger.entry.TrialEntry`."""

    config: TrialConfig
    replicate: int

    @property
    def status(self) -> str | None:
        """Final status; None until the trial ends."""

    @property
    def last(self) -> Mapping[str, float]:
        """Measures at the last reported epoch."""


class Decided(NamedTuple):
    """State of one comparison.

    Args:
        label: first config or method.
        against: second config or method.
        decision: `better`, `worse`, `small`, or None while the comparison is open.
        seeds: number of paired seeds at the last look.
    """

    label: str
    against: str
    decision: str | None
    seeds: int


@dataclass(frozen=True)
class Progress:
    """State of a sequential confirmation, or of sequential repetitions.

    Args:
        due: trials required by the looks so far, in starting order.
        decided: all comparisons.
        complete: whether no further trial is due.
    """

    due: list[PlannedTrial]
    decided: list[Decided]
    complete: bool


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a config, or the best configs from several searches of a method, which are averaged.

    Args:
        label: name of the config or method.
        config_ids: identifiers of the averaged configs. A config found by several searches occurs once for each search.
    """

    label: str
    config_ids: tuple[str, ...]


class Looks(NamedTuple):
    """Rule for adding trials.

    Args:
        detect: difference to detect.
        most: largest number of seeds.
        first: replicate number of the first seed.
    """

    detect: float
    most: int
    first: int


def comparisons_of(choices: Iterable[Choice], *, compares_methods: bool) -> list[tuple[Side, Side]]:
    """Return the planned comparisons, as in `analysis.questions.confirmation.summarise_confirmation`."""
    groups: dict[str, list[Choice]] = {}
    for choice in choices:
        groups.setdefault(choice.method or choice.config.config_id, []).append(choice)
    every = [(_side(group), group[0]) for group in groups.values()]
    return [
        (one, other)
        for one, first in every
        for other, second in every
        if one is not other
        and first.config.student == second.config.student
        and (second.control == BASELINE if compares_methods else first.rank is not None and second.control is not None)
    ]


def _side(group: list[Choice]) -> Side:
    config_ids = tuple(choice.config.config_id for choice in group for _ in choice.searches or (0,))
    return Side(group[0].method or group[0].label, config_ids)


def find_progress(
    confirmation: Confirmation, entries: Iterable[Confirmed], *, study_seed: int, compares_methods: bool
) -> Progress:
    """Work out which trials are due in a sequential confirmation, look by look.

    Args:
        confirmation: confirmation with a difference to detect.
        entries: confirmation trials so far.
        study_seed: study seed.
        compares_methods: whether every config is compared with the baseline.
    """
    request = confirmation.request
    assert request.detect is not None
    configs: dict[str, tuple[Stage, TrialConfig]] = {
        choice.config.config_id: ("confirm", choice.config) for choice in confirmation.choices
    }
    return find_progress_of(
        Looks(request.detect, request.seeds, confirmation.first_replicate),
        comparisons_of(confirmation.choices, compares_methods=compares_methods),
        configs,
        *_ended(entries),
        study_seed=study_seed,
    )


def find_progress_of(
    rule: Looks,
    pairs: Sequence[tuple[Side, Side]],
    configs: Mapping[str, tuple[Stage, TrialConfig]],
    ended: Container[tuple[str, int]],
    scores: Mapping[str, Mapping[int, float]],
    *,
    study_seed: int,
) -> Progress:
    """Work out which trials are due, look by look.

    Args:
        rule: difference to detect, and numbers of seeds.
        pairs: comparisons.
        configs: stage and config by identifier, in trial order.
        ended: config and replicate of each ended trial.
        scores: scores of the finished trials by config and replicate.
        study_seed: study seed.
    """
    from analysis.statistics.sequential import plan_looks  # SciPy would slow down every command

    looks = plan_looks(rule.detect, rule.most, max(1, len(pairs)))
    first, done = rule.first, 0
    due: list[PlannedTrial] = []
    decided: list[str | None] = [None] * len(pairs)
    seen = [0] * len(pairs)
    active = list(configs)

    def progress(complete: bool) -> Progress:
        found = zip(pairs, decided, seen, strict=True)
        return Progress(due, [Decided(a.label, b.label, each, n) for (a, b), each, n in found], complete)

    for number, look in enumerate(looks.looks):
        wanted = [
            PlannedTrial(configs[config_id][0], configs[config_id][1].with_seeds(study_seed, replicate), replicate)
            for replicate in range(first + done, first + look)
            for config_id in active
        ]
        due += wanted
        done = look
        if any((each.config.config_id, each.replicate) not in ended for each in wanted):
            return progress(complete=False)
        for place, (one, other) in enumerate(pairs):
            if decided[place] is None:
                differences = _differences(scores, one, other, range(first, first + look))
                seen[place] = len(differences)
                decided[place] = looks.decide(differences, number)
        still_open = [pair for pair, decision in zip(pairs, decided, strict=True) if decision is None]
        wanted_next = {config_id for pair in still_open for side in pair for config_id in side.config_ids}
        active = [config_id for config_id in configs if config_id in wanted_next]
        if not active:
            break
    return progress(complete=True)


def _ended(entries: Iterable[Confirmed]) -> tuple[set[tuple[str, int]], dict[str, dict[int, float]]]:
    """Return the ended trials, and the test scores of the finished ones by config and replicate."""
    ended, scores = set(), dict[str, dict[int, float]]()
    for entry in entries:
        config_id = entry.config.config_id
        if entry.status is not None:
            ended.add((config_id, entry.replicate))
        if entry.status == "finished":
            score = entry.last.get(objective_of(entry.config.dataset, "test"), math.nan)
            scores.setdefault(config_id, {})[entry.replicate] = score
    return ended, scores


def _differences(
    scores: Mapping[str, Mapping[int, float]], one: Side, other: Side, replicates: Iterable[int]
) -> list[float]:
    own, others = ([scores.get(config_id, {}) for config_id in side.config_ids] for side in (one, other))
    shared = [each for each in replicates if all(each in known for known in (*own, *others))]
    return [_mean([known[each] for known in own]) - _mean([known[each] for known in others]) for each in shared]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def sequential_texts(confirmation: Confirmation, progress: Progress) -> list[str]:
    """Return the decisions of a complete sequential confirmation in words."""
    request = confirmation.request
    assert request.detect is not None
    averaged = any(choice.searches for choice in confirmation.choices)
    return decisions_in_words(progress, request.detect, request.seeds, of_searches=averaged)


def decisions_in_words(progress: Progress, detect: float, most: int, *, of_searches: bool) -> list[str]:
    """Return the decisions of complete looks in two sentences or more.

    Args:
        progress: state after the last look.
        detect: difference to detect.
        most: largest number of seeds.
        of_searches: whether methods are averaged over the configs of several searches.
    """
    groups: dict[str, list[str]] = {}
    for each in progress.decided:
        words = _WORDS[each.decision].format(against=each.against, detect=detect)
        groups.setdefault(words, []).append(f"{each.label} (n = {each.seeds})")
    decisions = "; ".join(f"{words}: {listed(names)}" for words, names in groups.items())
    undecided = any(each.decision is None for each in progress.decided)
    return [
        f"Seeds were added, up to {most}, until each of {counted(len(progress.decided), 'comparison')} was decided to "
        f"±{detect:g}. {decisions}." + (" Only more seeds can settle the open comparisons." if undecided else ""),
        "These decisions keep the error over all looks and comparisons: a false sign at 0.05 in all, a true difference "
        f"of {detect:g} taken for a smaller one at 0.2 each. The p-values and intervals in the tables are those of a "
        "fixed number of seeds, and do not account for the looks." + (_OF_THE_CONFIGS if of_searches else ""),
    ]


def sequential_summary(confirmation: Confirmation, progress: Progress) -> dict[str, Any]:
    """Return the decisions as JSON values."""
    return {
        "decisions": [each._asdict() for each in progress.decided],
        "texts": sequential_texts(confirmation, progress) if progress.complete else [],
    }
