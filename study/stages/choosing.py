"""Choice of configs for a confirmation: the best configs by lower bound, and the controls.

`analysis.questions.confirmation.lower_bounds` computes the bounds. This module selects the scores to bound.
"""

import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from analysis.questions.confirmation import Scores, best_first, lower_bounds
from analysis.statistics.estimates import Estimate
from study.ledger.confirmation import Choice, Confirmation
from study.ledger.entry import TrialEntry, by_config, trial_name
from study.ledger.front import eligible
from study.ledger.ledger import StudyLedger
from study.plan.confirmation import ALWAYS_CONFIRMED, PUBLISHED
from study.plan.methods import BASELINE, known_methods, row_name, why_not
from study.plan.plan import StudyPlan
from study.plan.stages import Stage
from study.stages.control_tuning import best_of_tuned
from trainables.display.numbers import listed
from trainables.spec.trial import TrialConfig

_NAMED: Final = 2  # maximum number of fields in a label in addition to width and temperature


def choose(ledger: StudyLedger) -> Confirmation | None:
    """Choose the configs for a confirmation from all trials. Return None if no config can be chosen.

    A config that failed on any seed is not chosen, because the scores on the other seeds are biased upwards. For a
    search, the study's controls are added, with `kd` at the tuned temperature (`study.stages.control_tuning`). PESF-KD
    with published settings is added as well, as far as config fields can express the settings. The config with the best
    search score is always confirmed, because the drop from the search score measures the optimism of the search. All
    choices use trials with the search's number of epochs, and the chosen configs get the confirmation's number. With
    several objectives or limits, only configs on the front are chosen. This function writes nothing.
    """
    plan = ledger.plan
    assert plan.confirmation is not None
    choices = _choose_methods(ledger) if plan.compared else _choose_configs(ledger)
    if all(choice.rank is None for choice in choices):
        return None
    return Confirmation(
        request=plan.confirmation,
        first_replicate=1 + max((entry.replicate for entry in ledger.entries.values()), default=0),
        choices=tuple(choice.trained_for(plan.confirm_epochs) for choice in choices),
        chosen_at=time.time(),
    )


def count_candidates(ledger: StudyLedger) -> int:
    """Count the configs (in a comparison: methods) available for choice, in addition to the controls."""
    if not ledger.plan.compared:
        return len(_candidates_of_search(ledger))
    return sum(name not in ALWAYS_CONFIRMED for name in _method_candidates(ledger))


def _scores(entries: list[TrialEntry]) -> tuple[float, ...]:
    return tuple(entry.score for entry in entries if entry.status == "finished")


def _candidates(searched: list[TrialEntry], fresh: list[TrialEntry]) -> list[tuple[TrialConfig, Scores]]:
    """Return configs with at least one finished and no failed trial, oldest first, with their scores."""
    in_search, on_fresh = by_config(searched), by_config(fresh)
    found = []
    for config_id in {**in_search, **on_fresh}:
        tried, repeated = in_search.get(config_id, []), on_fresh.get(config_id, [])
        scores = Scores(_scores(tried), _scores(repeated))
        if (scores.searched or scores.fresh) and all(entry.status != "failed" for entry in (*tried, *repeated)):
            found.append(((tried + repeated)[0].config, scores))
    return found


def _candidates_of_search(ledger: StudyLedger) -> list[tuple[TrialConfig, Scores]]:
    """Return the search candidates: with several objectives or limits, only configs on the front."""
    found, on_front = _candidates(ledger.in_stage("search"), ledger.in_stage("replicate")), eligible(ledger)
    return [each for each in found if on_front is None or each[0].config_id in on_front]


def _repetitions(ledger: StudyLedger) -> list[dict[int, float]]:
    """Return the scores of all repeated configs, one dict per config, by replicate number."""
    groups = by_config((*ledger.in_stage("control"), *ledger.in_stage("replicate"))).values()
    return [{entry.replicate: entry.score for entry in group if entry.status == "finished"} for group in groups]


def _ranked(
    candidates: list[tuple[TrialConfig, Scores]], repetitions: list[dict[int, float]]
) -> list[tuple[TrialConfig, Scores, dict[str, Any]]]:
    """Return the candidates sorted by lower bound, best first, each with the bound as JSON values."""
    if not candidates:
        return []
    scores = [each for _, each in candidates]
    bounds = lower_bounds(scores, repetitions)
    order = best_first(scores, bounds)
    return [(*candidates[i], _bound_json(bounds[i])) for i in order]


def _bound_json(bound: Estimate) -> dict[str, Any]:
    low = None if bound.low != bound.low else bound.low  # JSON has no NaN
    return {"value": bound.value, "low": low, "n": bound.n, "method": bound.method}


def _choose_configs(ledger: StudyLedger) -> list[Choice]:
    plan = ledger.plan
    assert plan.confirmation is not None
    candidates = _candidates_of_search(ledger)
    ranked = _ranked(candidates, _repetitions(ledger))
    by_score = sorted((each for each in ranked if each[1].searched), key=lambda each: -max(each[1].searched))
    winner = by_score[0][0].config_id if by_score else None
    choices = []
    for number, (config, scores, bound) in enumerate(ranked, start=1):
        won, chosen = config.config_id == winner, number <= plan.confirmation.configs
        if won or chosen:
            choices.append(
                Choice(
                    label=f"{number}: {_name_of(plan, config)}",
                    config=config,
                    rank=number if chosen else None,
                    winner=won,
                    search_score=max(scores.searched) if scores.searched else scores.value,
                    bound=bound,
                )
            )
    students = [each for each in plan.students if any(choice.config.student == each for choice in choices)]
    controls = [control for student in students for control in _control_choices(ledger, student)]
    return _with_controls(choices, controls)


def _name_of(plan: StudyPlan, config: TrialConfig) -> str:
    """Return a readable and, as far as space permits, unique name for a config of a search.

    If there are several students, the name contains the student.
    """
    name = trial_name(config, 0).removesuffix("-s0")
    others = [field for field in plan.search_space.varied if field not in ("adapter_width", "temperature")]
    if len(others) > _NAMED:
        others = [field for field in others if field == "student"]
    values = ((field.replace("learning_rate", "lr").replace("_", " "), getattr(config, field)) for field in others)
    words = [f"{field} {value:.2g}" if isinstance(value, float) else f"{field} {value}" for field, value in values]
    return ", ".join([name, *words])


def _control_choices(ledger: StudyLedger, student: str) -> list[Choice]:
    """Return a search's controls for one student as choices. If there are several students, labels name the student."""
    plan, tuned = ledger.plan, best_of_tuned(ledger, student)
    of = f" ({student})" if len(plan.students) > 1 else ""
    choices = []
    for control in plan.controls:
        if control == BASELINE and tuned is not None:
            config, score = tuned
            label = f"{control}{of} at tuned temperature {config.temperature:.3g}"
            choices.append(Choice(label=label, config=config, control=control, search_score=score))
        else:
            choices.append(
                Choice(label=f"{control}{of}", config=plan.control_config(control, student), control=control)
            )
    published = known_methods(plan.base.dataset)["pesf_kd"]
    if why_not(published, plan.base.model_dump(), plan.overrides, plan.own_methods) is None:
        config = plan.configure({**published.fields, "student": student})
        changed = [name for name, value in published.fields.items() if getattr(config, name) != value]
        label = f"{PUBLISHED}{of} but for {', '.join(changed)}" if changed else f"{PUBLISHED}{of}"
        choices.append(Choice(label=label, config=config, control=PUBLISHED))
    return choices


def _with_controls(choices: list[Choice], controls: list[Choice]) -> list[Choice]:
    """Merge chosen configs and controls without duplicates. A chosen control keeps both roles."""
    merged = {choice.config.config_id: choice for choice in choices}
    for control in controls:
        known = merged.get(control.config.config_id)
        if known is None:
            merged[control.config.config_id] = control
        elif known.control is None:
            update = {"control": control.control, "label": f"{known.label} = {control.label}"}
            merged[control.config.config_id] = known.model_copy(update=update)
    return list(merged.values())


def _method_candidates(ledger: StudyLedger) -> dict[str, dict[int, list[tuple[TrialConfig, Scores]]]]:
    """Return the candidates of each compared method by search, leaving out searches and methods without candidates.

    Search numbers count from 1. The number is 0 if each method has one search or none. The candidates are then all
    configs of the method.
    """
    plan = ledger.plan
    several = plan.searches_per_method > 1
    numbers = {search.name: 1 + search.number for search in plan.searches} if several else {}
    by_search: dict[tuple[str, int], tuple[list[TrialEntry], list[TrialEntry]]] = {
        (method.name, number): ([], []) for method in plan.compared for number in sorted({*numbers.values()} or {0})
    }
    found_by: dict[str, set[int]] = {}
    for entry in ledger.in_stage("search"):
        number = numbers[plan.search_of(entry.config, entry.search)] if several else 0
        found_by.setdefault(entry.config.config_id, set()).add(number)
        by_search[row_name(entry.config), number][0].append(entry)
    stages: tuple[Stage, ...] = ("control", "replicate")
    for entry in (entry for stage in stages for entry in ledger.in_stage(stage)):
        for number in found_by.get(entry.config.config_id, ()) if several else (0,):
            by_search[row_name(entry.config), number][1].append(entry)
    found: dict[str, dict[int, list[tuple[TrialConfig, Scores]]]] = {}
    for (name, number), entries in by_search.items():
        if candidates := _candidates(*entries):
            found.setdefault(name, {})[number] = candidates
    return found


@dataclass(frozen=True)
class _Best:
    """Best config in one search for a method, or in several searches with the same result.

    Args:
        config: the config.
        scores: the config's scores.
        searches: search numbers; empty for one search per method.
    """

    config: TrialConfig
    scores: Scores
    searches: tuple[int, ...]


def _best_of_searches(ledger: StudyLedger) -> dict[str, list[_Best]]:
    """Return, for each method, the best config of each search, without duplicates."""
    repetitions = _repetitions(ledger)
    found: dict[str, list[_Best]] = {}
    for name, by_search in _method_candidates(ledger).items():
        best: dict[str, _Best] = {}
        for number, candidates in by_search.items():
            config, scores, _ = _ranked(candidates, repetitions)[0]
            known = best.get(config.config_id)
            if known is not None:  # with the scores from all searches with this config
                scores = Scores((*known.scores.searched, *scores.searched), scores.fresh)
            searches = (*(known.searches if known is not None else ()), *([number] if number else []))
            best[config.config_id] = _Best(config, scores, searches)
        found[name] = list(best.values())
    return found


def _mean_bound(bounds: list[Estimate], counts: list[int]) -> Estimate:
    """Average the bounds of a method's configs, weighted by the number of searches with this best config.

    The configs share the same seeds, so the mean lower bound is no tighter than a single config's bound.
    """
    if len(bounds) == 1:
        return bounds[0]
    value, low, high = (
        float(np.average([getattr(each, field) for each in bounds], weights=counts))
        for field in ("value", "low", "high")
    )
    return Estimate(value, low, high, min(each.n for each in bounds), f"mean over {sum(counts)} searches")


def _choose_methods(ledger: StudyLedger) -> list[Choice]:
    """Choose each method's best config per search, then the best methods, plus `ce` and `kd` in any case.

    A method with several searches is ranked by the mean over the searches. All configs of the method share this rank,
    best first.
    """
    plan = ledger.plan
    assert plan.confirmation is not None
    methods = _best_of_searches(ledger)
    every = [(name, best) for name, configs in methods.items() for best in configs]
    bounds = lower_bounds([best.scores for _, best in every], _repetitions(ledger))
    paired = [(name, best, bound) for (name, best), bound in zip(every, bounds, strict=True)]
    own = {name: [(best, bound) for of, best, bound in paired if of == name] for name in methods}
    of_methods = [
        _mean_bound([bound for _, bound in pairs], [max(1, len(best.searches)) for best, _ in pairs])
        for pairs in own.values()
    ]
    order = best_first([pairs[0][0].scores for pairs in own.values()], of_methods)
    places = iter(range(1, plan.confirmation.configs + 1))
    choices = []
    for place in order:
        name = list(own)[place]
        control = name if name in ALWAYS_CONFIRMED else None
        rank = None if control else next(places, None)
        if not (control or rank):
            continue
        bests, of_bests = [best for best, _ in own[name]], [bound for _, bound in own[name]]
        for number in best_first([best.scores for best in bests], of_bests):
            best = bests[number]
            choices.append(
                Choice(
                    label=_label_of(name, best.searches, alone=len(bests) == 1),
                    config=best.config,
                    rank=rank,
                    control=control,
                    search_score=max(best.scores.searched) if best.scores.searched else best.scores.value,
                    bound=_bound_json(of_bests[number]),
                    method=name if best.searches else "",
                    searches=best.searches,
                )
            )
    return choices


def _label_of(method: str, searches: tuple[int, ...], *, alone: bool) -> str:
    """Return a config label: the method, plus the search numbers if other searches found another config."""
    if alone:
        return method
    return f"{method}, search{'es' if len(searches) > 1 else ''} {listed([str(each) for each in searches])}"
