"""Checks before any work starts: a study's models accept the data and work with the methods.

torch is imported inside the functions, because resolving a plan must not import torch.
"""

import sys
from contextlib import redirect_stdout
from pathlib import Path

from study.plan.methods import ComparedMethod
from study.plan.plan import StudyPlan
from trainables.data.registry import dataset_info
from trainables.process.errors import UsageError
from trainables.spec.architectures import is_pretrained_text_name
from trainables.spec.modality import is_text
from trainables.spec.trial import TrialConfig


def check_networks(plan: StudyPlan, *, fetched_later: bool = False, leaves_out: bool = False) -> dict[str, str]:
    """Check that student and teacher accept the dataset's samples, and that each method can run a step with them.

    Args:
        plan: study plan.
        fetched_later: whether models on the Hub may be missing, as in a dry run before a download.
        leaves_out: whether to return unusable compared methods instead of raising. Used if the user named no methods,
            and at a resume, so the other methods of a study from an earlier version can continue.

    Returns:
        The reason for each unusable compared method, by row name. Always empty without `leaves_out`.

    Raises:
        UsageError: a model or a method is unusable. The message names the flag, the reason and a usable model.
    """
    from trainables.process.threads import one_thread
    from trainables.run.shape_check import ShapeError, check_method

    info = dataset_info(plan.base.dataset)
    try:
        # On a busy machine, two samples took ten times as long with several threads. Code of the user may print.
        with one_thread(), redirect_stdout(sys.stderr):
            if not (_check_text(plan, fetched_later=fetched_later) if info.task is not None else _check_images(plan)):
                return {}
            if plan.compared and leaves_out:
                reasons = {method.name: misfit(plan, method) for method in plan.compared}
                return {name: reason for name, reason in reasons.items() if reason is not None}
            for config in _configs(plan):
                check_method(
                    config, info, flag="--methods" if plan.compared else "--method", packed=plan.pack not in (1, None)
                )
    except ShapeError as error:
        raise UsageError(str(error)) from None
    return {}


def misfit(plan: StudyPlan, method: ComparedMethod) -> str | None:
    """Return why a method cannot match a study's models, or None if no problem is found.

    If a method cannot be tried because language model files are missing, None is returned too. The models themselves
    must already have passed `check_networks`.

    Args:
        plan: study plan.
        method: method of the comparison, or a candidate for it.
    """
    from trainables.process.threads import one_thread
    from trainables.run.shape_check import method_problem

    if is_text(plan.base.dataset) and not all(map(_is_local, (plan.base.student, plan.base.teacher))):
        return None
    with one_thread(), redirect_stdout(sys.stderr):
        reason = method_problem(plan.configure(method.fields), dataset_info(plan.base.dataset))
    return f"cannot match teacher {plan.base.teacher} and student {plan.base.student} ({reason})" if reason else None


def _is_local(name: str) -> bool:
    """Return whether a language model can be built from files on this machine: a folder or a cached Hub download."""
    from trainables.models.pretrained import find_folder
    from trainables.models.text import TextModelError

    if not is_pretrained_text_name(name):
        return True
    try:
        return find_folder(name).is_dir()
    except TextModelError:
        return False


def _configs(plan: StudyPlan) -> list[TrialConfig]:
    """Return one config for each combination of method and student in the study."""
    if plan.compared:
        return [plan.configure(method.fields) for method in plan.compared]
    point, methods = plan.search_space.default_point(), [each for each in plan.controls if each != plan.base.method]
    return [
        config
        for student in plan.students
        for config in (
            plan.configure({**point, "student": student}),
            *(plan.control_config(method, student) for method in methods),
        )
    ]


def _batch_sizes(plan: StudyPlan) -> list[int]:
    """Return the study's batch size, or the smallest and largest batch sizes of the search."""
    searched = [each.extremes for each in plan.given_bounds if each.field == "batch_size"]
    sizes = [int(size) for size in (*searched[0],)] if searched else [_configs(plan)[0].batch_size]
    return sorted({min(sizes), max(sizes)})


def _student_flag(plan: StudyPlan) -> str:
    if len(plan.students) == 1:
        return "--student"
    return "--search student=" if any(each.field == "student" for each in plan.search) else "--space: student"


def _check_images(plan: StudyPlan) -> bool:
    """Check the image models alone. Always return True, because methods can always be tried with image models."""
    from trainables.run.shape_check import Wanted, check_network, check_samples

    configs, base = _configs(plan), plan.base
    info, batch_size = dataset_info(base.dataset), _batch_sizes(plan)[0]
    several = plan.workers_per_trial > 1
    for size in _batch_sizes(plan):
        check_samples(info, size)
    for student in plan.students:
        check_network(student, Wanted(info, batch_size, shares_norms=several), flag=_student_flag(plan))
    trains_teacher = any(each.method_spec.companion == "teacher" for each in configs)
    if plan.teachers or trains_teacher:
        given = bool(base.teacher_digest)
        wanted = Wanted(
            info,
            batch_size if trains_teacher else 2,
            trains=trains_teacher or not given,
            shares_norms=trains_teacher and several,
        )
        check_network(base.teacher, wanted, flag="--teacher", given=given)
    return True


def _check_text(plan: StudyPlan, *, fetched_later: bool) -> bool:
    """Check the language models alone. Return whether methods can be tried, which needs local model files."""
    from trainables.run.shape_check import check_samples, check_text_network

    base = plan.base
    info = dataset_info(base.dataset)
    for size in _batch_sizes(plan):
        check_samples(info, size)
    names = [(_student_flag(plan), student) for student in plan.students]
    names += [("--teacher", base.teacher)] if plan.teachers else []
    if fetched_later and any(is_pretrained_text_name(name) for _, name in names):
        return False
    # A teacher from a checkpoint was checked when it was read. The checkpoint's folder may be gone by now.
    if base.teacher_digest and is_pretrained_text_name(base.teacher) and not Path(base.teacher).is_dir():
        return False
    for flag, name in names:
        check_text_network(name, base.teacher, info, layers=base.student_layers, flag=flag)
    return True
