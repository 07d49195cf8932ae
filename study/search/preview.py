"""The configs that a search proposes first."""

from typing import Any, Final

from study.plan.methods import ComparedMethod
from study.plan.plan import StudyPlan
from study.search.samplers import make_sampler

_SHOWN: Final = 5


def first_configs(plan: StudyPlan, count: int = _SHOWN) -> list[dict[str, Any]]:
    """The configs that the search proposes first, as far as they do not depend on results.

    Samplers begin at random points; those that a sampler would choose knowing results cannot be foretold.
    """
    import optuna

    if plan.compared:  # each begins where it was published
        return [_reads(plan, method) for method in plan.compared]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    configs = []
    (search,) = plan.searches
    for number in range(min(count, plan.trials)):
        study.sampler = make_sampler(plan.sampler, study_seed=plan.seed, number=number)
        suggested = search.suggest(study.ask())
        configs.append({name: suggested[name] for name in plan.search_space.varied})
    return configs


def _reads(plan: StudyPlan, method: ComparedMethod) -> dict[str, Any]:
    """A compared method's row, and what it reads of what the study's methods differ in."""
    config = plan.configure(method.fields)
    shown = [name for name in plan.differing if name in config.method_spec.fields]
    shown += [name for name in plan.search_space.varied if name.startswith("student_")]
    return {"method": method.name, **{name: getattr(config, name) for name in shown}}
