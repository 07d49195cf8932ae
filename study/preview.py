"""What a dry run shows: the resolved plan, the first configs, the number of trials and their cost."""

from typing import Any, Final

from study.plan import StudyPlan
from study.samplers import make_sampler
from study.teacher_choice import describe_teacher
from study.teacher_storage import describe_teacher_storage
from trainables.data.registry import dataset_info

_SHOWN: Final = 5


def first_configs(plan: StudyPlan, count: int = _SHOWN) -> list[dict[str, Any]]:
    """The configs that the search proposes first, as far as they do not depend on results.

    Samplers begin at random points; those that a sampler would choose knowing results cannot be foretold.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    configs = []
    for number in range(min(count, plan.trials)):
        study.sampler = make_sampler(plan.sampler, study_seed=plan.seed, number=number)
        suggested = plan.search_space.suggest(study.ask())
        configs.append({name: suggested[name] for name in plan.search_space.varied})
    return configs


def describe_plan(plan: StudyPlan, configs: list[dict[str, Any]]) -> str:
    """The plan for a person."""
    promising = min(plan.promising, plan.trials)
    base = plan.base
    info = dataset_info(base.dataset)
    train, validation, test = info.split_sizes
    split = f"stratified, seed {base.split_seed}"
    lines = [
        f"study      {plan.name}  (plan {plan.digest}; nothing has been written)",
        f"question   {plan.search_space.question}",
        f"{_networks(plan)} on {base.dataset} by {base.method}"
        f"{' with an adapter' if base.adapter else ''}, in {base.precision}",
        f"data       {train:,} train, {validation:,} validation ({split}), {test:,} test (never read by a search)",
        f"varies     {', '.join(f'{p.name} {p.domain}' for p in plan.search_space.parameters if p.role != 'fixed')}",
        f"sampler    {plan.sampler}, scheduler {plan.scheduler}, seed {plan.seed}",
        f"trials     {plan.total_trials} = {plan.trials} of the search + {len(plan.controls)} controls "
        f"({', '.join(plan.controls)}) x {plan.replicates} seeds + {promising} promising x {plan.replicates} seeds",
        f"cost       {plan.epochs_total()} student epochs at most ({base.epochs} a trial)"
        + (", fewer where ASHA stops trials" if plan.scheduler == "asha" else "")
        + _beside(plan),
        f"teacher    {describe_teacher(plan)}",
        f"           {describe_teacher_storage(plan)}",
        f"runs on    ray {plan.address}, {plan.cpus_per_trial:g} CPU and {plan.gpus_per_trial:g} GPU a trial, "
        f"at most {plan.max_concurrent or 'as many as fit'} at once" + _packed(plan),
        f"writes     {plan.directory}",
        "first configs",
    ]
    lines += [
        "           " + ", ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in config.items())
        for config in configs
    ]
    return "\n".join(lines)


def _networks(plan: StudyPlan) -> str:
    base, entry = plan.base, plan.base.method_entry
    if entry.peer == "teacher" and not entry.needs_teacher:
        return f"trains     {base.student} and, as its peer, {base.teacher}, both from scratch,"
    second = f" and a second {base.student}" if entry.peer == "student" else ""
    learning = ", which goes on learning," if entry.trains_teacher else ""
    return f"distils    {base.teacher}{learning} -> {base.student}{second}"


def _beside(plan: StudyPlan) -> str:
    beside = plan.base.method_entry.companion
    if beside is None:
        return ""
    epochs = (plan.total_trials - plan.replicates * len(plan.controls)) * plan.base.epochs
    return f"; beside {epochs} of them a {getattr(plan.base, beside)} learns too"


def _packed(plan: StudyPlan) -> str:
    if plan.pack == "auto":
        return ", packed as many as is tried out to be fastest"
    return f", packed by {plan.pack}" if plan.pack > 1 else ""
