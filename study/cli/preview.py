"""Dry-run preview of a study: the resolved plan, the first configs, the number of trials and the cost."""

import math
from typing import Any, Final

from analysis.statistics.estimates import EXACT_PAIRS
from analysis.statistics.nested import FEW_GROUPS, student_quantile
from analysis.statistics.power import LEVEL, POWER, attainable_level, least_detectable
from search_spaces import MethodComparison
from study.cli.data_preview import classes_line, data_warnings
from study.cli.image_preview import image_lines, validation_origin
from study.plan.beliefs import belief_lines
from study.plan.confirmation import PUBLISHED, ConfirmationRequest
from study.plan.control_tuning import tuned_configs, tuning_trials
from study.plan.executor import executor_of, packs_by_default
from study.plan.gpu_notes import idle_note
from study.plan.gpus import AUTO, gpus_in_words
from study.plan.methods import BASELINE
from study.plan.notes import (
    comparison_notes,
    confirmation_notes,
    describe_teacher_storage,
    left_out_lines,
    sampler_notes,
)
from study.plan.objectives import objective_lines
from study.plan.plan import StudyPlan
from study.plan.repetitions import replicates_in_words
from study.plan.siblings import sibling_notes
from study.plan.size import confirm_trials, epochs_total
from study.plan.teacher_choice import describe_teacher
from study.plan.until import RULE, STARTUP
from trainables.data.registry import dataset_info
from trainables.display.numbers import p_bound
from trainables.process.errors import UsageError
from trainables.process.gpu import count_gpus
from trainables.spec.measures import ACCURACY
from trainables.spec.methods import method_spec
from trainables.storage.uris import redact_place
from trainables.user_code.reference import is_canonical

# The spreads of 19 methods on Fashion-MNIST lie between 0.0045 and 0.0216, with median 0.0091.
_EXAMPLE_SPREAD: Final = 0.01


def describe_plan(plan: StudyPlan, configs: list[dict[str, Any]], ended: int | None = None) -> str:
    """Return the plan as text for the user.

    Args:
        plan: study plan.
        configs: first configs proposed by the search.
        ended: number of ended trials at a resume.
    """
    base = plan.base
    info = dataset_info(base.dataset)
    train, validation, test = info.split_sizes
    split = _split(plan)
    lines = [
        f"study      {plan.name}  (plan {plan.digest}; nothing has been written)",
        f"question   {plan.search_space.question}",
        f"{_networks(plan)} on {base.dataset} {_method(plan)}, in {base.precision}",
        f"data       {train:,} train, {validation:,} validation ({split}), {test:,} test ({_test_reader(plan)})",
        *image_lines(plan),
        f"classes    {classes_line(plan)}",
        *(f"warning    {warning}" for warning in data_warnings(plan)),
        *([f"maximises  {plan.objective}"] if plan.objective != ACCURACY and not plan.objectives else []),
        *(f"{name:<11}{text}" for name, text in objective_lines(plan)),
        f"varies     {_varies(plan)}",
        *(f"earlier    {each.words}" for each in plan.warm_start),
        *(f"{name:<11}{text}" for name, text in belief_lines(plan)),
        *([f"until      the search ends {RULE}"] if plan.until is not None else []),
        f"sampler    {plan.sampler if plan.searches else 'none'}, scheduler {plan.scheduler}, seed {plan.seed}"
        + (f"; {_equal_searches(plan)}" if plan.compared and plan.searches else ""),
        f"trials     {'at most ' * _may_end_early(plan)}{plan.total_trials} = {_sum_of_trials(plan)}"
        + ("" if ended is None else f"; {ended} have ended, only the rest will run"),
        *([f"repeats    {_repeats(plan)}"] if plan.replicates_detect is not None else []),
        *([f"confirms   {describe_confirmation(plan)}"] if plan.confirmation is not None else []),
        f"detects    {describe_resolution(plan)}",
        f"cost       at most {epochs_total(plan)} student epochs ({base.epochs} per trial{_confirm_epochs(plan)})"
        + (", fewer if ASHA stops trials" if plan.scheduler == "asha" else "")
        + _companions(plan)
        + _students_before(plan),
        f"teacher    {describe_teacher(plan)}",
        f"           {describe_teacher_storage(plan)}",
        f"runs {_where(plan)}",
        f"writes     {plan.directory}"
        + (f", checkpoints under {redact_place(plan.storage_path)}" if plan.storage_path is not None else ""),
        *(f"left out   {line}" for line in left_out_lines(plan)),
        *(f"note       {note}" for note in comparison_notes(plan) if plan.compared),
        *(f"note       {note}" for note in gpu_notes(plan)),
        *(f"note       {note}" for note in (*sampler_notes(plan), *confirmation_notes(plan), *sibling_notes(plan))),
        _starts(plan) if plan.compared else "first configs",
    ]
    lines += [
        "           " + ", ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in config.items())
        for config in configs
    ]
    return "\n".join(lines)


def gpu_notes(plan: StudyPlan) -> list[str]:
    """Return the note on this machine's GPUs left idle by a local study."""
    if plan.gpus_per_trial != 0 or (executor_of(plan) == "ray" and plan.address != "local"):
        return []
    return [note for note in [idle_note(plan, count_gpus())] if note]


def count_plan_sources(plan: StudyPlan) -> dict[str, int]:
    """Count a dataset's text sources. Empty for images, and for datasets with missing files.

    Raises:
        UsageError: a dataset file cannot be used.
    """
    info = dataset_info(plan.base.dataset)
    if info.task is None or info.missing_files(plan.data_root):
        return {}
    from trainables.data.text.dataset import count_sources  # imports torch

    try:
        return count_sources(info, plan.data_root, seed=plan.example_config.split_seed)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _may_end_early(plan: StudyPlan) -> bool:
    """Return whether results decide the number of trials."""
    return plan.replicates_detect is not None or plan.until is not None


def _split(plan: StudyPlan) -> str:
    seed = f"seed {plan.example_config.split_seed}"
    if dataset_info(plan.base.dataset).task is None:
        return validation_origin(plan)
    counts = count_plan_sources(plan)
    known = f"{counts['validation_sources']:,} of {counts['sources']:,} sources" if counts else "whole sources"
    return f"{known}, stratified as far as possible, {seed}"


def _starts(plan: StudyPlan) -> str:
    """Describe the first configs of a comparison: from the space, or published settings."""
    space = plan.search_space
    return "settings of the space" if isinstance(space, MethodComparison) and space.arms else "published settings"


def _method(plan: StudyPlan) -> str:
    if plan.compared:
        return f"by {len(plan.compared)} methods"
    return f"by {plan.base.method}{' with an adapter' if plan.base.adapter else ''}"


def _varies(plan: StudyPlan) -> str:
    space = plan.search_space
    if isinstance(space, MethodComparison):
        tuned = ", ".join(f"{p.name} {p.domain}" for p in space.tuned)
        return f"the method and, if the method uses them, {tuned}" if tuned else "the method"
    return ", ".join(f"{p.name} {p.domain}" for p in space.parameters if p.role != "fixed")


def _equal_searches(plan: StudyPlan) -> str:
    """Describe the budget shared by the searches of all methods."""
    number = "one sampler" if plan.searches_per_method == 1 else f"{plan.searches_per_method} samplers"
    text = f"{number} per method, starting from the {_starts(plan)}, with {plan.trials} trials each"
    if plan.budget == "flops":
        return text.replace("with", "with at most") + ", by equal FLOPs: as many as that number of trials of ce take"
    if plan.sampler in ("tpe", "gp"):
        text += f", {max(0, plan.trials - STARTUP)} of them proposed by a model of the results"
    return text


def _sum_of_trials(plan: StudyPlan) -> str:
    seeds, methods = f"x {replicates_in_words(plan)} seeds", f"{len(plan.compared)} methods"
    if not plan.searches:
        return f"{methods} {seeds}"
    promising = min(plan.promising, plan.trials)
    if plan.compared:
        searches = f"{plan.searches_per_method} searches x " if plan.searches_per_method > 1 else ""
        return f"{methods} x {searches}({plan.trials} search trials + {promising} best {seeds})"
    return (
        f"{plan.trials} search trials + {len(plan.controls)} controls ({', '.join(plan.controls)}){_of_students(plan)} "
        f"{seeds} "
        f"+ {promising} promising {seeds}"
    )


def _of_students(plan: StudyPlan) -> str:
    number = len(plan.students)
    return f" x {number} students" if number > 1 else ""


def _repeats(plan: StudyPlan) -> str:
    return (
        f"until every comparison with {BASELINE} is decided to ±{plan.replicates_detect:g} on the validation split "
        f"(group-sequential), {replicates_in_words(plan)} seeds each"
    )


def _test_reader(plan: StudyPlan) -> str:
    return "never used by a search" + (", used once by the confirmation" if plan.confirmation is not None else "")


def describe_confirmation(plan: StudyPlan) -> str:
    """Return a description of the configs to confirm."""
    request = plan.confirmation
    if request is None:
        return "nothing"
    if plan.compared:
        what = f"the {request.configs} best methods, ce and kd"
        if plan.searches_per_method > 1:
            what += f", by the best configs of all {plan.searches_per_method} searches of each,"
    else:
        configs = "best config" if request.configs == 1 else f"{request.configs} best configs"
        what = f"the {configs} (by lower bound), the search winner, {', '.join(plan.controls)} and {PUBLISHED}"
        what += ", controls with each student of the configs," if len(plan.students) > 1 else ""
    texts = [f"{what} on {request.seeds_in_words} fresh seeds each: at most {confirm_trials(plan)} additional trials"]
    tuned = tuned_configs(plan)
    if tuned:
        texts[0] += (
            f", {sum(1 for _ in tuning_trials(plan))} of them to tune the temperature of {BASELINE} on the "
            f"validation split ({', '.join(f'{config.temperature:g}' for config in tuned)})"
        )
    if plan.confirm_epochs != plan.base.epochs:
        texts.append(
            f"each is trained for {plan.confirm_epochs} epochs, after a choice by validation scores of "
            f"{plan.base.epochs} epochs"
        )
    if request.detect is not None:
        texts.append(f"each stops when its comparisons are decided to ±{request.detect:g} (group-sequential)")
    texts += factor_texts(request)
    comparisons, floor = planned_comparisons(plan), 2 / 2**request.seeds
    if floor * comparisons >= LEVEL:
        texts.append(
            f"no paired p-value can be below {p_bound(floor)}, or below {p_bound(floor * comparisons)} after "
            f"correction for {comparisons} comparisons: use the intervals, or increase --seeds"
        )
    return "; ".join(texts)


def _confirm_epochs(plan: StudyPlan) -> str:
    return f", {plan.confirm_epochs} per confirmed trial" if plan.confirm_epochs != plan.base.epochs else ""


def factor_texts(request: ConfirmationRequest) -> list[str]:
    """Describe how seeds are divided over several teachers and splits, and the effect on intervals."""
    if request.cells == 1:
        return []
    per_cell, (teachers, splits) = request.seeds_per_cell, (request.teachers, request.splits)
    own = f"{per_cell[0]} seeds" if min(per_cell) == max(per_cell) else f"{min(per_cell)} or {max(per_cell)} seeds"
    if max(per_cell) == 1:
        own = "one seed"
    over = f"{splits} splits into train and validation" if splits > 1 else f"{teachers} teachers"
    if splits > 1 and teachers > 1:
        over += f" with {teachers} teachers each"
    texts = [
        f"the {request.seeds} seeds of each config are divided over {over} ({own} with each of {request.cells}, the "
        "same ones for every config), so there are no more trials than without"
    ]
    if splits > 1:
        texts.append(
            "the test split stays, so nothing is tested that was trained on or chosen by; a teacher is trained on the "
            "training samples of its split alone"
        )
    top, unit = (splits, "splits") if splits > 1 else (teachers, "teachers")
    wider = student_quantile(top - 1) / student_quantile(request.seeds - 1)
    text = f"intervals for new {unit} rest on {top} {unit}"
    if wider > 1:
        text += f": about {wider:.1f} times as wide as those over seeds, even if all {unit} are alike"
    if top < FEW_GROUPS:
        text += f"; they are wide for so few, and {FEW_GROUPS} {unit} or more are better"
    return [*texts, text]


def planned_comparisons(plan: StudyPlan) -> int:
    """Return the number of comparisons in the final table: for the confirmation, or else for the repetitions."""
    if plan.confirmation is not None:
        configs = plan.confirmation.configs
        return configs + 1 if plan.compared else configs * (len(plan.controls) + 1)
    if plan.compared:
        return len(plan.compared) - 1
    return min(plan.promising, plan.trials) + (len(plan.controls) - 1) * len(plan.students)


def planned_resolution(plan: StudyPlan) -> dict[str, Any]:
    """Return a plan's least detectable differences in standard deviations of a paired difference.

    The spread between seeds is unknown before a study has run.
    """
    seeds = plan.replicates if plan.confirmation is None else plan.confirmation.seeds
    tests = planned_comparisons(plan)
    alone, after = least_detectable(1.0, seeds), least_detectable(1.0, seeds, tests=max(1, tests))
    return {
        "seeds": seeds,
        "comparisons": tests,
        "spreads": alone if math.isfinite(alone) else None,
        "spreads_after_holm": after if math.isfinite(after) else None,
    }


def describe_resolution(plan: StudyPlan) -> str:
    """Describe the least difference detectable with the planned seeds."""
    found = planned_resolution(plan)
    seeds, tests, alone, after = found["seeds"], found["comparisons"], found["spreads"], found["spreads_after_holm"]
    if not tests:
        return "nothing: the study compares no configs"
    if alone is None:
        least = next(n for n in range(2, EXACT_PAIRS + 1) if attainable_level(n))
        return (
            f"no difference: {seeds} paired seed(s) cannot reach p < {LEVEL:g}, and only more seeds can settle the "
            f"question (at least {least})"
        )
    corrected = "none" if after is None else f"{after:.2f}"
    return (
        f"at n = {seeds} seeds, with power {POWER:g}, differences of {alone:.2f} standard deviations of a paired "
        f"difference ({corrected} after Holm's correction for {tests} comparisons): {alone * _EXAMPLE_SPREAD:.4f} if "
        f"paired differences vary by {_EXAMPLE_SPREAD:g} between seeds"
    )


def _networks(plan: StudyPlan) -> str:
    base, entry = plan.base, plan.base.method_spec
    if entry.peer == "teacher" and not entry.needs_teacher:
        return f"trains     {_students(plan)} and the peer {base.teacher}, both from scratch,"
    second = " and a second student alike" if len(plan.students) > 1 else f" and a second {base.student}"
    second = second if entry.peer == "student" else ""
    trained = ", which is trained too," if entry.trains_teacher else ""
    return f"distils    {base.teacher}{trained} -> {_students(plan)}{second}"


def _students(plan: StudyPlan) -> str:
    names = plan.students
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _companions(plan: StudyPlan) -> str:
    if plan.compared:
        names = [m.name for m in plan.compared if method_spec(str(m.fields["method"])).companion is not None]
        return f"; {', '.join(names)}: a second network is trained with the student" if names else ""
    companion = plan.base.method_spec.companion
    if companion is None:
        return ""
    epochs = (plan.total_trials - plan.replicates * len(plan.fixed_configs)) * plan.base.epochs
    return f"; in {epochs} of them, {getattr(plan.base, companion)} is trained too"


def _students_before(plan: StudyPlan) -> str:
    """Return a clause on trials that first train another student. The epochs for this are not counted."""
    first = [m.name for m in plan.compared if m.fields.get("adapter_training") == "first"]
    if plan.overrides.get("adapter_training") == "first" and not plan.compared:
        first = [plan.base.method]
    return f"; {', '.join(first)}: as many epochs of another student before each trial" if first else ""


def _where(plan: StudyPlan) -> str:
    if plan.executor == "in-process":
        gpu = ", on a GPU if there is one" if plan.gpus_per_trial == AUTO else ""
        return f"in    this process, one trial after the other{gpu}"
    if executor_of(plan) == "processes":
        most = plan.max_concurrent
        return (
            f"in    worker processes of this machine, {plan.cpus_per_trial:g} CPU per trial, "
            + (f"at most {most} at once" if most else "as many at once as fit")
            + _packing(plan)
        )
    return (
        f"on    Ray {plan.address}, {plan.cpus_per_trial:g} CPU and {gpus_in_words(plan.gpus_per_trial)} per trial, "
        + (f"at most {plan.max_concurrent} trials at once" if plan.max_concurrent else "as many trials at once as fit")
        + _packing(plan)
        + _workers(plan)
    )


def _workers(plan: StudyPlan) -> str:
    workers = plan.workers_per_trial
    return f", {workers} data-parallel workers per trial, each with these resources" if workers > 1 else ""


def _packing(plan: StudyPlan) -> str:
    if plan.pack is None and not packs_by_default(plan):
        return ""
    if executor_of(plan) == "processes" and plan.pack in (None, "auto"):
        return ", small students packed by 8 where no proposal waits for a result"
    if plan.pack == "auto" and is_canonical(plan.base.student):
        return ", not packed, because it is unknown whether a network of your own keeps channels apart"
    if plan.pack == "auto":
        return ", packed in groups of the size measured as fastest"
    return f", packed in groups of {plan.pack}" if plan.pack is not None and plan.pack > 1 else ""
