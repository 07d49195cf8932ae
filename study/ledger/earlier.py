"""Trials from an earlier study for the start of a search; see `study.plan.warm_start`."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from search_spaces import Parameter
from study.ledger.entry import TrialEntry
from study.ledger.front import eligible
from study.ledger.ledger import StudyLedger
from study.plan.plan import StudyPlan
from study.plan.resolve import load_plan
from study.plan.warm_start import DEAF, FLAG, EarlierStudy, is_folder, places_in, remember_trials
from trainables.display.numbers import listed
from trainables.process.errors import StudyError, UsageError
from trainables.spec.measures import DEPLOY_FACTS
from trainables.spec.trial import SEED_FIELDS, TrialConfig

_MOST_FIRST: Final = 5
_SHARE_FIRST: Final = 4  # trials of the search for each first proposal
_LEAST_FOR_CMAES: Final = 10  # it starts from the best tenth


def with_earlier(plan: StudyPlan, given: str | None) -> StudyPlan:
    """Return a new study's plan with the earlier studies for the start of the search.

    Args:
        plan: plan of the new study.
        given: argument of `--warm-start`.

    Raises:
        UsageError: the search cannot start from a study. The message names the study.
    """
    if given is None:
        return plan
    places = places_in(given)
    _check_search(plan)
    found: dict[str, EarlierStudy] = {}
    most = max(1, min(_MOST_FIRST, plan.trials // _SHARE_FIRST) // len(places))
    for place in places:
        earlier = _taken_from(plan, place, most)
        if earlier.study_id in found:
            raise UsageError(f"{FLAG} {given}: study {earlier.name!r} is given twice: leave out one of the two")
        found[earlier.study_id] = earlier
    return plan.model_copy(update={"warm_start": tuple(found.values())})


def _check_search(plan: StudyPlan) -> None:
    if not plan.searches:
        raise UsageError(f"{FLAG} starts a search, and space {plan.space!r} searches nothing: leave it out")
    if plan.compared:
        raise UsageError(f"{FLAG}: the searches of all methods of space {plan.space!r} start alike: leave it out")
    if plan.sampler in DEAF:
        raise UsageError(f"{FLAG}: --sampler {plan.sampler} {DEAF[plan.sampler]}: choose tpe, gp, cmaes or nsga2")
    if plan.trials < _SHARE_FIRST:
        raise UsageError(f"{FLAG}: {plan.trials} trials are too few to start from others: raise --trials to 4 or more")


def _taken_from(plan: StudyPlan, place: str, most: int) -> EarlierStudy:
    directory = Path(place) if is_folder(place) else plan.output_dir / place
    try:
        source = load_plan(directory)
        ledger = StudyLedger(source, read_only=True)
    except (UsageError, StudyError) as error:
        raise UsageError(f"{FLAG} {place}: {error}") from None
    shown = f"{FLAG} {place}"
    if not source.searches:
        raise UsageError(f"{shown}: study {source.name!r} of space {source.space!r} has no search: give another study")
    ended = [each for each in ledger.in_stage("search") if each.status in ("finished", "pruned") and each.scores]
    if not any(each.status == "finished" for each in ended):
        raise UsageError(f"{shown}: study {source.name!r} has no finished trial of a search: run it first")
    common = _common(plan, source, ended, shown)
    recorded = None if ledger.dataset is None else str(ledger.dataset["digest"])
    same = [each for each in ended if not _differences(plan, source, each, recorded)]
    numeric = all(each.kind != "categorical" for each in _varied(plan))
    used = same if plan.sampler != "cmaes" or (numeric and len(same) >= _LEAST_FOR_CMAES) else []
    first, differences = [], []
    if not used:
        first = _best(ledger, ended, common)[:most]
        differences = (
            [f"cmaes needs {_LEAST_FOR_CMAES} trials with values, and only numbers"]
            if same
            else _differences(plan, source, ended[0], recorded)
        )
    return EarlierStudy(
        place=place,
        name=source.name,
        study_id=source.study_id,
        digest=remember_trials([_kept(each) for each in used]),
        dataset_digest=recorded,
        used=len(used),
        left_out=len(ended) - len(used) if used else 0,
        first=tuple(first),
        differences=tuple(differences),
    )


def _varied(plan: StudyPlan) -> list[Parameter]:
    """Return the searched fields from all searches of a plan, each once."""
    found = {each.name: each for search in plan.searches for each in search.parameters if each.role != "fixed"}
    return list(found.values())


def _common(plan: StudyPlan, source: StudyPlan, ended: Sequence[TrialEntry], shown: str) -> list[Parameter]:
    """Return the fields searched by both studies.

    Raises:
        UsageError: there are none, or no trial is within the bounds of the new study.
    """
    searched = {each.name for each in _varied(source)}
    common = [each for each in _varied(plan) if each.name in searched]
    if not common:
        raise UsageError(
            f"{shown}: the studies search no field in common: {source.name!r} searches {listed(sorted(searched))}, "
            f"this study searches {listed([each.name for each in _varied(plan)])}: give another study, or leave it out"
        )
    if not any(_point(each.config, common) for each in ended):
        both = listed([f"{each.name} {each.domain}" for each in common])
        raise UsageError(
            f"{shown}: the studies have in common {both}, and no trial of {source.name!r} is within these bounds: give "
            "wider bounds by --search, or leave it out"
        )
    return common


def _point(config: TrialConfig, parameters: Sequence[Parameter]) -> dict[str, Any]:
    """Return a config's values of fields; empty if one value is not allowed."""
    point = {each.name: getattr(config, each.name, None) for each in parameters}
    return point if all(each.contains(point[each.name]) for each in parameters) else {}


def _differences(plan: StudyPlan, source: StudyPlan, entry: TrialEntry, recorded: str | None) -> list[str]:
    """Return how the question of an earlier trial differs from the new study's; empty if they are the same."""
    found = [] if recorded else ["the digest of the data is not recorded"]
    if source.teacher_normalisation != plan.teacher_normalisation:
        found.append("another normalisation of the teacher's input")
    config, varied = entry.config, _varied(plan)
    values = {each.name: getattr(config, each.name, None) for each in varied}
    outside = [each.name for each in varied if not each.contains(values[each.name])]
    if outside:
        return [*found, *(f"{name} outside the bounds" for name in outside)]
    (search,) = plan.searches
    fixed = {each.name: each.value for each in search.parameters if each.role == "fixed"}
    same = plan.configure({**search.start, **fixed, **values})
    if same.config_id != config.config_id:
        theirs, ours = (
            {name: value for name, value in each.changed_fields.items() if name not in SEED_FIELDS}
            for each in (config, same)
        )
        names = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
        found += [f"{name} {getattr(config, name, None)}, here {getattr(same, name, None)}" for name in names]
    return found


def _best(ledger: StudyLedger, ended: Sequence[TrialEntry], common: Sequence[Parameter]) -> list[dict[str, Any]]:
    """Return the best distinct points from an earlier study, those on the front first."""
    front = eligible(ledger)

    def rank(entry: TrialEntry) -> tuple[bool, bool, float]:
        is_behind = front is not None and entry.config.config_id not in front
        return entry.status != "finished", is_behind, -entry.scores[max(entry.scores)]

    points = [point for each in sorted(ended, key=rank) if (point := _point(each.config, common))]
    return [point for number, point in enumerate(points) if point not in points[:number]]


def _kept(entry: TrialEntry) -> dict[str, Any]:
    """Return an earlier trial's sampler inputs as JSON values. Sizes and latencies are measured again."""
    last = max(entry.epochs)
    return {
        "trial_id": entry.trial_id,
        "status": entry.status,
        "config": entry.config.model_dump(mode="json"),
        "scores": {str(epoch): score for epoch, score in entry.scores.items()},
        "last_epoch": last,
        "last": {name: value for name, value in entry.last.items() if math.isfinite(value)},
        "facts": {name: value for name, value in entry.facts.items() if name not in DEPLOY_FACTS},
    }
