"""Preview of a search's first configs."""

from typing import Any, Final

from study.plan.methods import ComparedMethod
from study.plan.plan import StudyPlan
from study.search.objectives import create_optuna_study
from study.search.proposals import proposed_point
from study.search.samplers import make_sampler
from study.search.warm_start import optuna_trials
from trainables.spec.searchable import ALWAYS_READ

_SHOWN: Final = 5


def first_configs(plan: StudyPlan) -> list[dict[str, Any]]:
    """Return a search's first configs, as far as they do not depend on results.

    Samplers start with random points. Later points depend on results and cannot be predicted. If a search starts from
    trials of other studies, only the first point is known. If sizes or latencies are not yet measured, no point is
    known.
    """
    import optuna

    if plan.compared:  # each method starts at published settings
        return [_shown_settings(plan, method) for method in plan.compared]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = create_optuna_study(plan)
    configs = []
    (search,) = plan.searches
    earlier = optuna_trials(plan, search, {}) if plan.warm_start else []
    study.add_trials(earlier)
    shown = _SHOWN
    if used := sum(each.used for each in plan.warm_start):
        shown = 1 if len(earlier) == used else 0
    for number in range(min(shown, plan.trials)):
        study.sampler = make_sampler(plan.sampler, study_seed=plan.seed, number=number, earlier=earlier)
        if point := proposed_point(plan, search, number, plan.seed):
            study.enqueue_trial(point)
        suggested = search.suggest(study.ask())
        configs.append({name: suggested[name] for name in plan.search_space.varied})
    return configs


def _shown_settings(plan: StudyPlan, method: ComparedMethod) -> dict[str, Any]:
    """Return a compared method's row name and the fields read by the method, as far as they differ between methods."""
    config = plan.configure(method.fields)
    shown = [name for name in plan.differing if name in config.method_spec.fields]
    shown += [name for name in plan.search_space.varied if name in ALWAYS_READ]
    return {"method": method.name, **{name: getattr(config, name) for name in shown}}
