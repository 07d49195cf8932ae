"""Notes for the user before a study runs: left-out methods, limits of a comparison, teacher storage and samplers."""

from typing import Final

from search_spaces import MethodComparison, SearchSpace
from study.plan.methods import known_methods, why_not
from study.plan.network_checks import misfit
from study.plan.plan import StudyPlan
from study.plan.teacher_storage import TeacherStorage, methods_in_words, reckon_teacher_storage, size_in_words
from trainables.display.numbers import p_bound
from trainables.spec.architectures import LITERATURE_NAMES
from trainables.spec.modality import is_text
from trainables.storage.uris import is_uri, redact_place

IGNORE_PRUNED: Final = frozenset({"gp", "cmaes", "nsga2"})

_WITH_LARGE_WEIGHTS: Final = ("at", "fitnet", "sp")  # published loss weights are too large for models with few channels


def left_out(plan: StudyPlan) -> dict[str, list[str]]:
    """Return the methods that cannot run with the study's models, grouped by reason."""
    base = plan.base.model_dump()
    included = {method.name for method in plan.compared}
    reasons: dict[str, list[str]] = {}
    if plan.compared and isinstance(plan.search_space, MethodComparison) and plan.search_space.arms:
        return {}  # the compared methods define this study's question
    for name, method in known_methods(plan.base.dataset).items():
        if name in included:
            continue
        if (reason := why_not(method, base, plan.overrides, plan.own_methods)) is not None:
            reason = reason.removeprefix(f"method {method.fields['method']!r} ").partition(": ")[0]
        else:
            reason = misfit(plan, method)
        if reason is not None:
            reasons.setdefault(reason, []).append(name)
    return reasons


def left_out_lines(plan: StudyPlan) -> list[str]:
    """Return one line per reason with the methods left out of a comparison."""
    if not plan.compared:
        return []
    return [f"{', '.join(names)}: {reason}" for reason, names in left_out(plan).items()]


def _example(plan: StudyPlan) -> str:
    methods = [method.name for method in plan.compared if method.name in _WITH_LARGE_WEIGHTS]
    if not methods:
        return ""
    return (
        f": the loss weights of {', '.join(methods)} are far too large for tiny networks (at on digits, cnn_32_64 to "
        "cnn_3_4, n = 5: accuracy 0.467 at the published weight 1000, 0.841 at weight 1)"
    )


def comparison_notes(plan: StudyPlan) -> list[str]:
    """Return notes on the limits of a comparison, for the plan and for the report."""
    configs = {method.name: plan.configure(method.fields) for method in plan.compared}
    notes = []
    space = plan.search_space
    has_arms = isinstance(space, MethodComparison) and bool(space.arms)
    if not has_arms and (
        plan.base.dataset != "cifar100" or not {plan.base.student, plan.base.teacher} <= set(LITERATURE_NAMES)
    ):
        on_text = is_text(plan.base.dataset)
        for_text = "; those of pesf_kd, pkd and pea_kd are for GLUE and BERT" if on_text else ""
        notes.append(
            f"Published settings are for CIFAR-100 and the networks used with it{for_text}. With other data or "
            f"networks, a method may perform badly only because of these settings{_example(plan)}. "
            + (
                "Here, each search starts from them."
                if plan.searches
                else "--space method_tuned tunes each method equally."
            )
        )
    long = [
        f"{name} ({field} {getattr(config, field)})"
        for name, config in configs.items()
        for field in sorted(config.method_spec.fields)
        if field.endswith("_epochs") and getattr(config, field) > config.epochs
    ]
    if long:
        notes.append(
            f"Published settings for longer training: {', '.join(long)} exceed the {plan.base.epochs} epochs of a "
            "trial; --set changes a field for all methods."
        )
    others, floor = len(plan.compared) - 1, 2 / 2**plan.replicates
    if others and floor * others >= 0.05:
        notes.append(
            f"With {plan.replicates} fresh seed(s), no paired p-value can be below {p_bound(floor)}, or below "
            f"{p_bound(floor * others)} after correction for {others} differences: use the intervals, or increase "
            "--replicates."
        )
    return notes


def confirmation_notes(plan: StudyPlan) -> list[str]:
    """Return a note on settings in epochs, which do not scale with the number of confirmation epochs."""
    if plan.confirm_epochs == plan.base.epochs:
        return []
    configs = {method.name: plan.configure(method.fields) for method in plan.compared}
    if not configs:
        configs = {method: plan.control_config(method) for method in (plan.base.method, *plan.controls)}
    fixed = [
        f"{name} ({field} {getattr(config, field)})"
        for name, config in configs.items()
        for field in sorted(config.method_spec.fields)
        if field.endswith("_epochs") and getattr(config, field)
    ]
    if not fixed:
        return []
    return [
        f"Settings in epochs stay as they are in the {plan.confirm_epochs} epochs of a confirmed trial, while "
        f"schedules are scaled: {', '.join(fixed)}."
    ]


def describe_teacher_storage(plan: StudyPlan) -> str:
    """Return a description of the teacher outputs' source and the reason for it."""
    storage = reckon_teacher_storage(plan)
    if storage.source == "live":
        return f"outputs live ({storage.why}): at most {storage.passes_live} teacher passes over the train split"
    copies = ", copied to each node" if is_uri(plan.teacher_outputs_location) else ""
    return (
        f"outputs stored as {plan.teacher_outputs_dtype} ({storage.why}): at most {size_in_words(storage.size)} in "
        f"{redact_place(plan.teacher_outputs_location)}{copies}; {storage.passes_stored} teacher passes over the train "
        f"split instead of {storage.passes_live}, {storage.passes_saved} saved; " + _describe_benefit(storage)
    )


def _describe_benefit(storage: TeacherStorage) -> str:
    if not storage.live:
        return f"storage pays off once trials x epochs exceed {storage.passes_stored}"
    return f"some methods run the teacher live anyway: {methods_in_words(storage.live)}"


def sampler_notes(plan: StudyPlan) -> list[str]:
    """Return notes on the effects of the chosen sampler."""
    notes = []
    categorical = _categorical(plan.search_space)
    if plan.sampler == "cmaes" and plan.searches and categorical:
        notes.append(
            f"cmaes draws categorical parameters at random, without learning from results: {', '.join(categorical)}. "
            "tpe, gp and nsga2 learn these from results too"
        )
    if plan.scheduler == "asha" and plan.sampler in IGNORE_PRUNED:
        notes.append(
            f"for a trial stopped by asha, {plan.sampler} uses the value at the trial's last epoch, which is lower "
            "than a final value would be"
        )
    return notes


def _categorical(space: SearchSpace | MethodComparison) -> list[str]:
    """Return the names of categorical parameters varied by a search."""
    if isinstance(space, MethodComparison):
        return [each.name for each in space.tuned if each.kind == "categorical"]
    return [each.name for each in space.parameters if each.role != "fixed" and each.kind == "categorical"]
